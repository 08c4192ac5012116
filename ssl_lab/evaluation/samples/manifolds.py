"""Share of samples within the support of real images, and share of that support that samples cover."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lab.devices import wide

PRECISION_NEIGHBORS = 3  # Kynkaanniemi et al., section 3
DENSITY_NEIGHBORS = 5  # Naeem et al., section 4
_CHUNK = 2048


class Manifold(NamedTuple):
    """Balls around features (N, D), in fp64, that estimate the support of their distribution.

    Attributes:
        features: The centres.
        radii: Squared distance from each to its k-th nearest neighbour, by k.
    """

    features: Tensor
    radii: dict[int, Tensor]


def fit_manifold(x: Tensor) -> Manifold:
    """Balls around each row of (N, D) that reach its nearest other rows; k is cut to N - 1."""
    if not bool(x.isfinite().all()):
        raise ValueError("Cannot estimate the support of features that are not finite. Use an earlier checkpoint.")
    x = wide(x)
    numbers = (PRECISION_NEIGHBORS, DENSITY_NEIGHBORS)
    reach = min(max(numbers), len(x) - 1) + 1  # the nearest of all is the row itself
    nearest = torch.cat([_squared_distances(part, x).topk(reach, largest=False).values for part in x.split(_CHUNK)])
    return Manifold(x, {k: nearest[:, min(k, len(x) - 1)] for k in numbers})


def support_metrics(fake: Manifold, real: Manifold) -> dict[str, float]:
    r"""Precision and recall, density and coverage of samples :math:`Y_j` among real features :math:`X_i`.

    With :math:`B_k` the closed ball that reaches the k-th nearest neighbour in its own set,

    .. math::
        \mathrm{precision} &= \tfrac{1}{M} \sum_j [Y_j \in \cup_i B_3(X_i)] \qquad
        \mathrm{recall} = \tfrac{1}{N} \sum_i [X_i \in \cup_j B_3(Y_j)] \\
        \mathrm{density} &= \tfrac{1}{5M} \sum_j \sum_i [Y_j \in B_5(X_i)] \qquad
        \mathrm{coverage} = \tfrac{1}{N} \sum_i [\exists j: Y_j \in B_5(X_i)]

    Precision and density say how plausible samples are, recall and coverage how many kinds of images they show. For two
    sets of one distribution and equal in number, density is 1 and coverage near 1 on average, while precision and recall
    stay below; density may exceed 1. All depend on both numbers and on the features.

    References:
        Kynkaanniemi et al., Improved Precision and Recall (2019). arXiv:1904.06991
        Naeem et al., Reliable Fidelity and Diversity Metrics (2020). arXiv:2002.09797
    """
    precise, dense = [], []
    covered = torch.zeros(len(real.features), dtype=torch.bool, device=real.features.device)
    recalled = torch.zeros_like(covered)
    for start in range(0, len(fake.features), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distances = _squared_distances(fake.features[rows], real.features)  # (samples, real)
        in_real_ball = distances <= real.radii[DENSITY_NEIGHBORS]
        precise.append((distances <= real.radii[PRECISION_NEIGHBORS]).any(1))
        dense.append(in_real_ball.sum(1))
        recalled |= (distances <= fake.radii[PRECISION_NEIGHBORS][rows].unsqueeze(1)).any(0)
        covered |= in_real_ball.any(0)
    return {
        "precision": float(wide(torch.cat(precise)).mean()),
        "recall": float(wide(recalled).mean()),
        "density": float(wide(torch.cat(dense)).mean()) / DENSITY_NEIGHBORS,
        "coverage": float(wide(covered).mean()),
    }


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of rows in fp64, where the expanded square loses nothing that matters."""
    products = x @ y.T
    return (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * products).clamp_(min=0)
