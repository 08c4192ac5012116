"""Spread of features over views: distance between views of one sample, and between samples beyond that."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import keep_random_state, wide
from ssl_lab.evaluation.geometry.label_free import effective_rank
from ssl_lab.evaluation.geometry.metrics import ALIGNMENT_METRICS, LIDAR_METRICS
from ssl_lab.evaluation.protocol import Protocol, check_finite, unit_rows
from ssl_lab.types import Batch

RESOLUTION = 1e-6  # differences below this share of fp32 features are rounding


class ViewProtocol(Protocol):
    """A protocol that scores features of the method's own random views; no label is read.

    Args:
        num_views: Views V of each sample.
        num_samples: Samples N, drawn from the split; all if there are fewer.
        seed: Seed of the samples and of the views.

    Raises:
        ValueError: If there are fewer than two views or samples.
    """

    needs: ClassVar[str] = "view_features"

    def __init__(self, *, num_views: int, num_samples: int, seed: int) -> None:
        if num_views < 2 or num_samples < 2:
            raise ValueError(
                f"{type(self).__name__} compares views and samples, so it needs at least 2 of each; found "
                f"num_views={num_views} and num_samples={num_samples}."
            )
        self.num_views = num_views
        self.num_samples = num_samples
        self.seed = seed

    @abstractmethod
    def score(self, views: Tensor) -> dict[str, float]:
        """Metrics of features, fp32 (V, N, D): row n of each view belongs to one sample."""

    @torch.no_grad()
    def run(
        self, fn: Callable[[Batch, int], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score ``fn(batch, num_views)``, shape (num_views, B, D), on some samples of a split."""
        loader = datamodule.eval_dataloader(split)
        order = torch.randperm(loader.num_samples, generator=torch.Generator().manual_seed(self.seed))
        chosen = torch.zeros(loader.num_samples, dtype=torch.bool)
        chosen[order[: self.num_samples]] = True
        views = []
        with keep_random_state(device):
            torch.manual_seed(self.seed)
            for batch in loader:
                rows = chosen[batch["index"].cpu()]
                if rows.any():
                    some = {name: column[rows.to(column.device)].to(device) for name, column in batch.items()}
                    views.append(fn(some, self.num_views).float())
        return self.score(torch.cat(views, 1))


class Alignment(ViewProtocol):
    r"""Mean squared distance between the normalised features of two views of a sample.

    .. math:: \mathbb{E}\, \lVert f(x) - f(x^+) \rVert^2

    0 if views coincide, 2 if they are unrelated, and not a number if all samples have one direction: such features are
    aligned and say nothing. Features near collapse are well aligned too: read it beside
    :class:`~ssl_lab.evaluation.geometry.label_free.Uniformity`. With more than two views it is the mean over their pairs.

    Metric: ``alignment/loss``.

    Args:
        num_views: Views V of each sample.
        num_samples: Samples N, drawn from the split; all if there are fewer.
        seed: Seed of the samples and of the views.

    References:
        Wang and Isola, Alignment and Uniformity on the Hypersphere (2020), section 4.1.1. arXiv:2005.10242
    """

    metrics = ALIGNMENT_METRICS

    def __init__(self, *, num_views: int = 2, num_samples: int = 1000, seed: int = 0) -> None:
        super().__init__(num_views=num_views, num_samples=num_samples, seed=seed)

    def score(self, views: Tensor) -> dict[str, float]:
        """Mean over samples and over pairs of views."""
        check_finite(views.transpose(0, 1))
        x = unit_rows(wide(views))
        if (x - x.mean((0, 1))).square().mean() <= RESOLUTION**2:
            return {"alignment/loss": math.nan}
        num = len(x)
        # Over ordered pairs, the squared distances of V vectors sum to 2 (V times their squares - the square of their sum).
        distance = 2 * (num * x.square().sum((0, 2)) - x.sum(0).square().sum(1)) / (num * (num - 1))
        return {"alignment/loss": float(distance.mean())}


class LiDAR(ViewProtocol):
    r"""Effective rank of the features that tell samples apart, as seen against how views of one sample differ.

    Each sample is a class and its views are the class's members. With the scatter :math:`\Sigma_b` of the class means
    and the scatter :math:`\Sigma_w` within classes, LiDAR is the exponential of the entropy of the normalised
    eigenvalues of the matrix of linear discriminant analysis

    .. math:: (\Sigma_w + \delta I)^{-1/2}\, \Sigma_b\, (\Sigma_w + \delta I)^{-1/2}.

    From 1 to min(N - 1, D); 0 if no sample differs from another. Directions that carry nothing but the noise of views,
    which RankMe counts in full, weigh about 1/V. Compare at equal V, N and D, with N above D.

    Metric: ``lidar/rank``.

    Args:
        num_views: Views V of each sample (about 50 in the paper).
        num_samples: Samples N, drawn from the split; all if there are fewer.
        delta: :math:`\delta` as a share of the mean variance within classes, so that the features' scale does not
            matter; the paper's is an absolute constant.
        seed: Seed of the samples and of the views.

    References:
        Thilak et al., LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures (2024), section 3.
        arXiv:2312.04000
    """

    metrics = LIDAR_METRICS

    def __init__(self, *, num_views: int = 10, num_samples: int = 1000, delta: float = 1e-4, seed: int = 0) -> None:
        super().__init__(num_views=num_views, num_samples=num_samples, seed=seed)
        if delta <= 0:
            raise ValueError(
                f"LiDAR inverts a scatter matrix that may be singular, so it needs delta > 0, found {delta}."
            )
        self.delta = delta

    def score(self, views: Tensor) -> dict[str, float]:
        """The effective rank."""
        check_finite(views.transpose(0, 1))
        x = wide(views)
        means = x.mean(0)
        between = means - means.mean(0)
        if between.square().mean() <= RESOLUTION**2 * x.square().mean():
            return {"lidar/rank": 0.0}
        within = (x - means).flatten(0, 1)
        scatter = within.T @ within / len(within)
        ridge = (self.delta * scatter.diagonal().mean()).clamp(min=1e-12 * between.square().mean())
        root = torch.linalg.cholesky(scatter + ridge * torch.eye(len(scatter), dtype=x.dtype, device=x.device))
        whitened = torch.linalg.solve_triangular(root, between.T, upper=False)
        return {"lidar/rank": float(effective_rank(torch.linalg.svdvals(whitened).square()))}
