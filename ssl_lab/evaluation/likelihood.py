"""The evidence lower bound beside a model without any latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.types import Batch


class LikelihoodBound(Protocol):
    r"""ELBO, reconstruction and KL in nats per image, and bits per dimension beside the factorised baseline.

    Bits per dimension are :math:`-\mathrm{ELBO} / (D \ln 2)`, plus 8 for the Gaussian, whose density of pixels in
    [0, 1] becomes one of 256 levels. The baseline has the same likelihood with one mean per pixel, taken from the train
    split, and for the Gaussian one shared variance like the model's.

    Args:
        likelihood: The model's: ``bernoulli`` or ``gaussian``.
        seed: Seed of the one latent sample per image.
    """

    needs: ClassVar[str] = "elbo"

    def __init__(self, *, likelihood: Literal["bernoulli", "gaussian"] = "bernoulli", seed: int = 0) -> None:
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"There is no likelihood {likelihood!r}. Choose bernoulli or gaussian.")
        self.likelihood = likelihood
        self.seed = seed

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
        baseline = self._baseline(_pixels(datamodule, "train"), _pixels(datamodule, split))
        return {
            **{f"elbo/{name}": value for name, value in means.items()},
            "elbo/bits_per_dim": self._bits(-means["elbo"], datamodule),
            "elbo/baseline_bits_per_dim": self._bits(baseline, datamodule),
        }

    def _bits(self, nats: float, datamodule: DataModule) -> float:
        levels = 8.0 if self.likelihood == "gaussian" else 0.0
        return nats / math.prod(datamodule.spec.shape) / math.log(2) + levels

    def _baseline(self, train: Tensor, x: Tensor) -> float:
        mean = train.mean(0)
        if self.likelihood == "bernoulli":
            mean = mean.clamp(0.5 / len(train), 1 - 0.5 / len(train))
            return float(F.binary_cross_entropy(mean.expand_as(x), x, reduction="sum") / len(x))
        variance = (train - mean).square().mean()
        nats = 0.5 * ((x - mean).square() / variance + torch.log(2 * math.pi * variance))
        return float(nats.sum(1).mean())


def _pixels(datamodule: DataModule, split: str) -> Tensor:
    """All pixels of a split, fp64 in [0, 1], shape (N, D)."""
    return torch.cat([batch["image"].flatten(1).double() / 255 for batch in datamodule.eval_dataloader(split)])
