"""Label-free measures of features: number of directions in use, evenness, and collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_lab.devices import float64_device, wide
from ssl_lab.evaluation.geometry.metrics import FEATURE_STD_METRICS, RANKME_METRICS, UNIFORMITY_METRICS
from ssl_lab.evaluation.protocol import LabelFreeProtocol, check_finite, unit_rows


class RankMe(LabelFreeProtocol):
    r"""Effective rank of the features: the exponential of the entropy of their normalised singular values.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \sigma_k / \lVert \sigma \rVert_1

    From 1, all features on one line through the origin, to min(N, D), all directions alike. It compares runs of one
    method, at equal N; a high rank is necessary for good features, not sufficient. Features are neither centred nor
    normalised. The paper adds a small constant to each p; in fp64 none is needed.

    Metric: ``rankme/rank``.

    Args:
        num_samples: Samples N, drawn from the split with a fixed seed; all if there are fewer (paper: 25,600).

    References:
        Garrido et al., RankMe (2023), eq. 1 and 2. arXiv:2210.02885
    """

    metrics = RANKME_METRICS

    def __init__(self, *, num_samples: int = 25_600) -> None:
        self.num_samples = _checked("RankMe", num_samples)

    def score(self, x: Tensor) -> dict[str, float]:
        """The effective rank."""
        check_finite(x)
        x = wide(some_rows(x, self.num_samples))
        gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T  # half the time of a decomposition of x itself
        squares = torch.linalg.eigvalsh(gram)
        rounding = len(gram) * torch.finfo(gram.dtype).eps * squares.max()
        return {"rankme/rank": float(effective_rank(squares.where(squares > rounding, 0.0).sqrt()))}


class Uniformity(LabelFreeProtocol):
    r"""Uniformity of normalised features on the sphere: the logarithm of the mean Gaussian potential of pairs.

    .. math:: \log \mathbb{E}_{x \neq y}\, e^{-2 \lVert x - y \rVert^2}

    0 if all features coincide, those that are all zero too, about -4 if they are spread over a sphere of many
    dimensions; lower is more even.

    Metric: ``uniformity/loss``.

    Args:
        num_samples: Samples whose pairs are all compared, drawn from the split with a fixed seed.

    References:
        Wang and Isola, Alignment and Uniformity on the Hypersphere (2020), section 4.1.2, t = 2. arXiv:2005.10242
    """

    metrics = UNIFORMITY_METRICS

    def __init__(self, *, num_samples: int = 10_000) -> None:
        self.num_samples = _checked("Uniformity", num_samples)

    def score(self, x: Tensor) -> dict[str, float]:
        """The logarithm of the mean potential over all pairs of different samples."""
        check_finite(x)
        x = unit_rows(some_rows(x, self.num_samples))
        square = x.square().sum(1)  # 1, or 0 of features that are all zero, which have no direction
        total = torch.zeros((), dtype=torch.float64, device=float64_device(x.device))
        for start in range(0, len(x), 1024):
            cosine = x[start : start + 1024] @ x.T
            potential = torch.exp(4 * cosine - 2 * square[start : start + 1024, None] - 2 * square)
            total += wide(potential).sum() - wide(potential.diagonal(start)).sum()  # no sample with itself
        return {"uniformity/loss": float(torch.log(total / (len(x) * (len(x) - 1))))}


class FeatureStd(LabelFreeProtocol):
    r"""Standard deviation of each dimension of the normalised features, averaged, times :math:`\sqrt{D}`.

    SimSiam's sign of collapse: 0 if all samples have one feature vector, 1 if features are spread evenly around the
    origin. Features that are never negative, as after a ReLU, lie in between.

    Metric: ``feature_std/mean``.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020), section 4.1. arXiv:2011.10566
    """

    metrics = FEATURE_STD_METRICS

    def score(self, x: Tensor) -> dict[str, float]:
        """The mean deviation."""
        check_finite(x)
        return {"feature_std/mean": float(normalised_std(x))}


def effective_rank(spectrum: Tensor) -> Tensor:
    """Exponential of the entropy of non-negative values (K,), normalised to sum 1; 0 if all are 0."""
    total = spectrum.sum()
    entropy = torch.special.entr(spectrum / total).sum()
    return torch.where(total > 0, entropy.exp(), 0.0)


def normalised_std(x: Tensor) -> Tensor:
    r"""Deviation of each dimension of normalised features (N, D), averaged, times :math:`\sqrt{D}`; in [0, 1]."""
    return unit_rows(x.float()).std(0, correction=0).mean() * x.shape[1] ** 0.5


def some_rows(x: Tensor, num_rows: int, *, seed: int = 0) -> Tensor:
    """Up to ``num_rows`` rows, drawn without replacement and kept in order: a split may be sorted by class."""
    if len(x) <= num_rows:
        return x
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:num_rows].sort().values.to(x.device)]


def _checked(name: str, num_samples: int) -> int:
    if num_samples < 2:
        raise ValueError(f"{name} compares samples, so it needs at least 2; found num_samples={num_samples}.")
    return num_samples
