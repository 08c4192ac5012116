"""Likelihoods of images: the bound beside a model without latents, importance sampling, and the use of latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import float64_device, wide
from ssl_lab.evaluation.likelihood.metrics import BOUND_METRICS, LATENT_USE_METRICS, NLL_METRICS
from ssl_lab.evaluation.protocol import Protocol, outputs_of
from ssl_lab.losses.variational import gaussian_level_nll
from ssl_lab.pretext.binarize import Binarization, Binarize
from ssl_lab.types import Batch

MAX_DIMS = 64
"""Up to so many latent dimensions have a metric each."""


class LikelihoodBound(Protocol):
    r"""ELBO, reconstruction and KL in nats per image, and bits per dimension beside the factorised baseline.

    All are means over the split. ``elbo/elbo`` is the bound, to be maximised; ``elbo/reconstruction`` is
    :math:`-\log p(x|z)` at one latent sample per image and ``elbo/kl`` the divergence from the prior, so that
    :math:`\mathrm{ELBO} = -\mathrm{reconstruction} - \mathrm{KL}`.

    ``elbo/bits_per_dim`` is :math:`-\mathrm{ELBO} / (D \ln 2)` for D pixels times channels. The logistic is a probability
    of 8-bit pixels as it is. The Gaussian is a density, which has no lower bound on pixels of 256 values: there the terms
    hold ``level_nll``, the probability of each pixel's level, which counts instead of the reconstruction. For the
    Bernoulli, grey values count as probabilities; its bits are not comparable with those of the others.

    ``elbo/baseline_bits_per_dim`` is the same for a model without latents, fitted to the train split. For the Bernoulli it
    is one mean per pixel, which stays 1 / (2N) away from 0 and 1; for the Gaussian one mean per pixel and one shared
    variance, as probabilities of levels; for the logistic the frequencies of the 256 levels of each pixel, each level
    counted half an image more.

    Args:
        likelihood: The model's: ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: How the model makes pixels black or white, see :class:`~ssl_lab.pretext.binarize.Binarize`; the baseline
            is fitted to the same pixels.
        seed: Seed of the one latent sample per image.

    Raises:
        ValueError: If there is no such likelihood or binarisation.
    """

    metrics = BOUND_METRICS
    needs: ClassVar[str] = "elbo"

    def __init__(
        self,
        *,
        likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli",
        binarize: Binarization = "none",
        seed: int = 0,
    ) -> None:
        if likelihood not in ("bernoulli", "gaussian", "logistic"):
            raise ValueError(
                f"There is no likelihood {likelihood!r}. Choose bernoulli, gaussian or logistic, as the model does."
            )
        self.likelihood = likelihood
        self.binarize = Binarize(binarize).eval()
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
        """Average ``fn(batch, generator)``, terms of shape (B,), over the split.

        Raises:
            ValueError: If a Gaussian's terms lack ``level_nll``, or a bound is not finite.
        """
        generator = torch.Generator(device).manual_seed(self.seed)
        sums, count = dict.fromkeys(("elbo", "reconstruction", "kl", "level_nll"), 0.0), 0
        for batch in datamodule.eval_dataloader(split):
            terms = fn({name: column.to(device) for name, column in batch.items()}, generator)
            if self.likelihood == "gaussian" and "level_nll" not in terms:
                raise ValueError(
                    "Bits per dimension of a Gaussian need the probability of each pixel's level, but the method's elbo "
                    f"gives {', '.join(terms)}. Add level_nll, as Autoencoder.level_nll computes it, or choose "
                    "evaluation.likelihood as the method's."
                )
            terms = {"level_nll": terms["reconstruction"], **terms}
            for name in sums:
                sums[name] += float(wide(terms[name]).sum())
            count += len(batch["index"])
        means = {name: total / count for name, total in sums.items()}
        level_nll = means.pop("level_nll")
        if not math.isfinite(means["elbo"]):
            raise ValueError(
                f"The bound on the {split} split is {means['elbo']}, which is not finite. Lower optim.lr, or "
                "start from an earlier checkpoint."
            )
        return {
            **{f"elbo/{name}": value for name, value in means.items()},
            "elbo/bits_per_dim": self._bits(level_nll + means["kl"], datamodule),
            "elbo/baseline_bits_per_dim": self._bits(self._baseline(datamodule, split), datamodule),
        }

    def _bits(self, nats: float, datamodule: DataModule) -> float:
        return nats / math.prod(datamodule.spec.shape) / math.log(2)

    def _baseline(self, datamodule: DataModule, split: str) -> float:
        """Negative log likelihood in nats per image."""
        if self.likelihood == "logistic":
            counts = _level_counts(datamodule, "train") + 0.5
            log_frequency = (counts / counts.sum(1, keepdim=True)).log()
            scored_counts = _level_counts(datamodule, split)
            return -float((scored_counts * log_frequency).sum() / scored_counts[0].sum())
        train = _moments(datamodule, "train", self.binarize)
        if self.likelihood == "bernoulli":
            p = train.mean.clamp(0.5 / train.num_images, 1 - 0.5 / train.num_images)
            scored = _moments(datamodule, split, self.binarize)
            return float(F.binary_cross_entropy(p, scored.mean, reduction="sum"))
        log_sigma = 0.5 * (train.mean_square - train.mean.square()).mean().clamp(min=1e-12).log()
        levels, scored_counts = torch.arange(256) / 255, _level_counts(datamodule, split)
        nats = 0.0
        for means, counts in zip(train.mean.split(4096), scored_counts.split(4096), strict=True):
            pixels = levels.expand(len(means), 256).reshape(-1, 1)
            nll = gaussian_level_nll(means[:, None].expand(-1, 256).reshape(-1, 1), log_sigma, pixels)
            nats += float((counts * nll.view(-1, 256)).sum())
        return nats / float(scored_counts[0].sum())


class ImportanceNLL(Protocol):
    r"""Negative log likelihood in nats per image, by importance sampling from the posterior.

    .. math:: -\log p(x) \approx -\log \frac1S \sum_{s=1}^{S} \frac{p(x, z_s)}{q(z_s|x)}, \qquad z_s \sim q(z|x)

    ``nll/nats_k<S>`` is the mean over images: on average an upper bound that falls with S, so compare models at the same
    S. ``nll/effective_samples_k<S>`` is the mean of :math:`(\sum_s w_s)^2 / \sum_s w_s^2`; where it is near 1, a single
    sample outweighs all others and the estimate is far from the limit.

    Each image has latents of its own, drawn from seed and index: batch size and number of ranks do not matter, and ranks
    share the images. Latents are taken ``chunk_size`` at a time, and only running sums are kept.

    Args:
        num_samples: Latents S per image.
        num_images: Images of the split, spread over it evenly; None for all.
        chunk_size: Latents that are decoded at once; another number draws others.
        seed: Seed of the latents.

    Raises:
        ValueError: If a number is not positive.

    References:
        Burda et al., Importance Weighted Autoencoders (2016), section 5. arXiv:1509.00519
    """

    metrics = NLL_METRICS
    needs: ClassVar[str] = "log_weights"
    shared: ClassVar[bool] = True

    def __init__(
        self, *, num_samples: int = 5000, num_images: int | None = None, chunk_size: int = 1000, seed: int = 0
    ) -> None:
        if min(num_samples, chunk_size, 1 if num_images is None else num_images) < 1:
            raise ValueError(
                f"Importance sampling needs num_samples, chunk_size and num_images of at least 1, found {num_samples}, "
                f"{chunk_size} and {num_images}."
            )
        self.num_samples = num_samples
        self.num_images = num_images
        self.chunk_size = chunk_size
        self.seed = seed

    def run(
        self,
        fn: Callable[[Batch, int, torch.Generator], Tensor],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Average over images what ``fn(batch, num_samples, generator) -> (num_samples, B)`` weighs."""
        num_rows = datamodule.eval_dataloader(split).num_samples
        num_images = min(self.num_images or num_rows, num_rows)
        chosen = {k * num_rows // num_images for k in range(num_images)}

        def of_batch(batch: Batch) -> tuple[Tensor]:
            rows = [row for row, index in enumerate(batch["index"].tolist()) if index in chosen]
            of_images = [self._of_image(fn, {k: v[row : row + 1] for k, v in batch.items()}, device) for row in rows]
            return (torch.stack(of_images) if of_images else torch.empty(0, 2, dtype=torch.float64),)

        (found,) = outputs_of(of_batch, datamodule, split, device=device)
        found[found.isinf().any(1)] = math.nan  # an infinite weight is an overflow and no perfect model
        nll, effective_samples = found.mean(0).tolist()
        return {
            f"nll/nats_k{self.num_samples}": nll,
            f"nll/effective_samples_k{self.num_samples}": effective_samples,
        }

    def _of_image(self, fn: Callable[..., Tensor], image: Batch, device: torch.device) -> Tensor:
        """-log p(x) and effective number of samples of a batch of one, fp64 (2,)."""
        generator = torch.Generator(device).manual_seed(hash((self.seed, int(image["index"]))) % 2**63)
        log_sum, log_sum_of_squares = torch.full((2,), -math.inf, dtype=torch.float64, device=float64_device(device))
        for start in range(0, self.num_samples, self.chunk_size):
            log_w = wide(fn(image, min(self.chunk_size, self.num_samples - start), generator))
            log_sum = torch.logaddexp(log_sum, log_w.logsumexp((0, 1)))
            log_sum_of_squares = torch.logaddexp(log_sum_of_squares, (2 * log_w).logsumexp((0, 1)))
        nll = math.log(self.num_samples) - log_sum
        return torch.stack([nll, torch.exp(2 * log_sum - log_sum_of_squares)])


class LatentUse(Protocol):
    r"""Number of latent dimensions that carry information about the image, and the amount in each.

    ``elbo/active_units`` counts dimensions whose posterior mean varies over the split,
    :math:`\mathrm{Var}_x(\mathbb{E}[z_j|x]) >` ``threshold``. ``elbo/kl_dim_<j>`` is the mean KL of each dimension from
    the prior in nats, given if there are at most 64 of them.

    Args:
        threshold: Variance above which a dimension is active.

    References:
        Burda et al., Importance Weighted Autoencoders (2016), section 5. arXiv:1509.00519
    """

    metrics = LATENT_USE_METRICS
    needs: ClassVar[str] = "latents"
    shared: ClassVar[bool] = True

    def __init__(self, *, threshold: float = 0.01) -> None:
        if not 0 <= threshold < math.inf:
            raise ValueError(
                f"The threshold on the variance of an active dimension must be at least 0, found {threshold}. "
                "Set threshold=0.01."
            )
        self.threshold = threshold

    def run(
        self,
        fn: Callable[[Batch], tuple[Tensor, Tensor]],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Judge means and KL ``fn(batch)``, each (B, K), of the whole split."""
        mean, kl = (wide(part) for part in outputs_of(fn, datamodule, split, device=device))
        metrics = {"elbo/active_units": float((mean.var(0) > self.threshold).sum())}
        if kl.shape[1] <= MAX_DIMS:
            metrics |= {f"elbo/kl_dim_{j}": value for j, value in enumerate(kl.mean(0).tolist())}
        return metrics


class _Moments(NamedTuple):
    """Number of images, and mean and mean square of each pixel, fp64 (D,), pixels in [0, 1]."""

    num_images: int
    mean: Tensor
    mean_square: Tensor


def _moments(datamodule: DataModule, split: str, binarize: Binarize) -> _Moments:
    count = 0
    total = torch.zeros(math.prod(datamodule.spec.shape), dtype=torch.float64)
    total_square = torch.zeros_like(total)
    for batch in datamodule.eval_dataloader(split):
        x = wide(binarize(batch["image"] / 255, batch["index"]).flatten(1))
        count += len(x)
        total += x.sum(0)
        total_square += x.square().sum(0)
    return _Moments(count, total / count, total_square / count)


def _level_counts(datamodule: DataModule, split: str) -> Tensor:
    """Count the images that have each level at each pixel, fp64 (D, 256)."""
    dim = math.prod(datamodule.spec.shape)
    counts = torch.zeros(dim * 256, dtype=torch.float64)
    for batch in datamodule.eval_dataloader(split):
        levels = batch["image"].flatten(1).long() + 256 * torch.arange(dim)
        counts += torch.bincount(levels.flatten(), minlength=len(counts))
    return counts.view(dim, 256)
