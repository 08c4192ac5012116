"""The evidence lower bound beside a model without any latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.types import Batch


class LikelihoodBound(Protocol):
    r"""ELBO, reconstruction and KL in nats per image, and bits per dimension beside the factorised baseline.

    All are means over the split. ``elbo/elbo`` is the bound, to be maximised; ``elbo/reconstruction`` is
    :math:`-\log p(x|z)` at one latent sample per image and ``elbo/kl`` the divergence from the prior, so that
    :math:`\mathrm{ELBO} = -\mathrm{reconstruction} - \mathrm{KL}`.

    ``elbo/bits_per_dim`` is :math:`-\mathrm{ELBO} / (D \ln 2)` for D pixels times channels, plus :math:`\log_2 256 = 8`
    for the Gaussian: a density of pixels in [0, 1] becomes one of pixels in [0, 256), whose levels are 1 apart. For the
    Bernoulli, grey values count as probabilities and nothing is added; the two likelihoods are not comparable.

    ``elbo/baseline_bits_per_dim`` is the same for a model without latents, fitted by maximum likelihood to the train
    split: one mean per pixel, which for the Bernoulli stays 1 / (2N) away from 0 and 1, and for the Gaussian one shared
    variance like the model's.

    Args:
        likelihood: The model's: ``bernoulli`` or ``gaussian``.
        seed: Seed of the one latent sample per image.
    """

    needs: ClassVar[str] = "elbo"

    def __init__(self, *, likelihood: Literal["bernoulli", "gaussian"] = "bernoulli", seed: int = 0) -> None:
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"There is no likelihood {likelihood!r}. Choose bernoulli or gaussian, as the model does.")
        self.likelihood = likelihood
        self.seed = seed

    @torch.no_grad()
    def run(
        self,
        fn: Callable[[Batch, torch.Generator], dict[str, Tensor]],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Average ``fn(batch, generator)``, terms of shape (B,), over the split."""
        generator = torch.Generator(device).manual_seed(self.seed)
        sums, count = dict.fromkeys(("elbo", "reconstruction", "kl"), 0.0), 0
        for batch in datamodule.eval_dataloader(split):
            terms = fn({name: column.to(device) for name, column in batch.items()}, generator)
            for name in sums:
                sums[name] += float(terms[name].double().sum())
            count += len(batch["index"])
        means = {name: total / count for name, total in sums.items()}
        baseline = self._baseline(_moments(datamodule, "train"), _moments(datamodule, split))
        return {
            **{f"elbo/{name}": value for name, value in means.items()},
            "elbo/bits_per_dim": self._bits(-means["elbo"], datamodule),
            "elbo/baseline_bits_per_dim": self._bits(baseline, datamodule),
        }

    def _bits(self, nats: float, datamodule: DataModule) -> float:
        levels = 8.0 if self.likelihood == "gaussian" else 0.0
        return nats / math.prod(datamodule.spec.shape) / math.log(2) + levels

    def _baseline(self, train: _Moments, scored: _Moments) -> float:
        """Negative log likelihood in nats per image; both likelihoods need no more than the first two moments."""
        if self.likelihood == "bernoulli":
            p = train.mean.clamp(0.5 / train.num_images, 1 - 0.5 / train.num_images)
            return float(F.binary_cross_entropy(p, scored.mean, reduction="sum"))
        variance = (train.mean_square - train.mean.square()).mean()
        squared_error = scored.mean_square - 2 * scored.mean * train.mean + train.mean.square()
        return float(0.5 * (squared_error / variance + torch.log(2 * math.pi * variance)).sum())


class _Moments(NamedTuple):
    """Number of images, and mean and mean square of each pixel, fp64 (D,), pixels in [0, 1]."""

    num_images: int
    mean: Tensor
    mean_square: Tensor


def _moments(datamodule: DataModule, split: str) -> _Moments:
    count = 0
    total = torch.zeros(math.prod(datamodule.spec.shape), dtype=torch.float64)
    total_square = torch.zeros_like(total)
    for batch in datamodule.eval_dataloader(split):
        x = batch["image"].flatten(1).double() / 255
        count += len(x)
        total += x.sum(0)
        total_square += x.square().sum(0)
    return _Moments(count, total / count, total_square / count)
