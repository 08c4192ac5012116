"""Distances between samples and real images, and which classes the samples fall into."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.linear import LinearProbe
from ssl_lab.evaluation.protocol import FeatureSet, Protocol
from ssl_lab.evaluation.raw import raw_features
from ssl_lab.types import Encoder

BATCH = 500


class SampleQuality(Protocol):
    """Frechet distance and KID between samples and the scored split on features of a named encoder, and classes.

    Both distances depend on the encoder and on the number of samples, which their names carry:
    ``frechet/<encoder>_n<N>``. They are not FID, which is defined on one particular Inception network. The same
    distances between the train and the scored split (``..._real``) say what a perfect generator would reach. On labelled
    data a classifier fitted on the train split's features counts classes: ``samples/class_share_<k>``.

    Args:
        encoder: The feature extractor; None for raw pixels.
        encoder_name: Its name in the metrics.
        num_samples: Number of samples N.
        seed: Seed of the latents and of KID's subsets.

    References:
        Heusel et al. (2017), Frechet distance of Gaussians. arXiv:1706.08500
        Binkowski et al., Demystifying MMD GANs (2018). arXiv:1801.01401
    """

    needs: ClassVar[str] = "sample"

    def __init__(
        self,
        *,
        encoder: Encoder | None = None,
        encoder_name: str = "pixels",
        num_samples: int = 2000,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder
        self.encoder_name = encoder_name
        self.num_samples = num_samples
        self.seed = seed

    @torch.no_grad()
    def run(
        self, fn: Callable[..., Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score samples ``fn(num_samples, generator) -> (N, C, H, W)`` in [0, 1]."""
        embed = raw_features(datamodule.spec) if self.encoder is None else self.encoder.to(device).eval().embed
        generator = torch.Generator(device).manual_seed(self.seed)
        counts = [min(BATCH, self.num_samples - start) for start in range(0, self.num_samples, BATCH)]
        images = (fn(count, generator).clamp(0, 1).mul(255).round().byte() for count in counts)
        fake = torch.cat([embed({"image": batch}).double() for batch in images])
        train, train_y = _real(embed, datamodule, "train", device)
        real, real_y = _real(embed, datamodule, split, device)

        name = f"{self.encoder_name}_n{self.num_samples}"
        metrics = {
            f"frechet/{name}": frechet_distance(fake, real),
            f"frechet/{name}_real": frechet_distance(train[: self.num_samples], real),
            f"kid/{name}": kernel_distance(fake, real, seed=self.seed),
            f"kid/{name}_real": kernel_distance(train[: self.num_samples], real, seed=self.seed),
        }
        if train_y is not None and real_y is not None and datamodule.spec.num_classes is not None:
            metrics |= _class_shares(train, train_y, real, real_y, fake, datamodule.spec.num_classes)
        return metrics


def frechet_distance(x: Tensor, y: Tensor) -> float:
    r"""Squared Frechet distance of the Gaussians fitted to two sets of features, fp64.

    .. math:: \lVert \mu_x - \mu_y \rVert^2 + \mathrm{tr}(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2})

    Args:
        x: Features (N, D).
        y: Features (M, D).
    """
    root_x = _centred(x)
    root_y = _centred(y)
    # tr (S_x S_y)^(1/2) is the sum of singular values of A_x^T A_y when S = A A^T
    trace = torch.linalg.svdvals(root_x @ root_y.T).sum()
    spread = root_x.square().sum() + root_y.square().sum() - 2 * trace
    return max(0.0, float((x.mean(0) - y.mean(0)).square().sum() + spread))


def _centred(x: Tensor) -> Tensor:
    """A matrix (min(N, D), D) whose Gram matrix over features is the unbiased covariance of x."""
    rows = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(rows).R if len(rows) > rows.shape[1] else rows


def kernel_distance(x: Tensor, y: Tensor, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    r"""Unbiased squared maximum mean discrepancy with the kernel :math:`(x^\top y / D + 1)^3`, mean over subsets (KID).

    Args:
        x: Features (N, D).
        y: Features (M, D).
        num_subsets: Number of random subsets.
        subset_size: Samples in each, cut to N and M.
        seed: Seed of the subsets.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(subset_size, len(x), len(y))
    total = 0.0
    for _ in range(num_subsets):
        a = x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]
        b = y[torch.randperm(len(y), generator=generator)[:size].to(y.device)]
        total += float(_unbiased_mmd(a, b))
    return total / num_subsets


def _unbiased_mmd(a: Tensor, b: Tensor) -> Tensor:
    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / u.shape[1] + 1) ** 3

    def off_diagonal_mean(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return off_diagonal_mean(kernel(a, a)) + off_diagonal_mean(kernel(b, b)) - 2 * kernel(a, b).mean()


def _real(
    embed: Callable[..., Tensor], datamodule: DataModule, split: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    features, labels = [], []
    for batch in datamodule.eval_dataloader(split):
        features.append(embed({"image": batch["image"].to(device)}).double())
        if "label" in batch:
            labels.append(batch["label"].to(device))
    return torch.cat(features), torch.cat(labels) if labels else None


def _class_shares(
    train: Tensor, train_y: Tensor, real: Tensor, real_y: Tensor, fake: Tensor, num_classes: int
) -> dict[str, float]:
    both = torch.cat([real, fake]).float()
    features = FeatureSet(
        train_x=train.float(), train_y=train_y, test_x=both, test_y=torch.zeros(0), num_classes=num_classes
    )
    predictions = LinearProbe().predict(features)
    shares = torch.bincount(predictions[len(real) :], minlength=num_classes).double() / len(fake)
    return {
        **{f"samples/class_share_{k}": float(share) for k, share in enumerate(shares)},
        "samples/min_class_share": float(shares.min()),
        "samples/classifier_top1": float((predictions[: len(real)] == real_y).double().mean()),
    }
