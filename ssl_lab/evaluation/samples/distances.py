"""Distances between two sets of features: of Gaussians fitted to them, and of their kernel means."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lab.devices import float64_device, wide

_CHUNK = 4096


class Gaussian(NamedTuple):
    """Moments of a set of features in fp64.

    Attributes:
        mean: Mean, shape (D,).
        root: A matrix R (min(N, D), D) such that R^T R is the unbiased covariance.
    """

    mean: Tensor
    root: Tensor


def fit_gaussian(x: Tensor) -> Gaussian:
    """Mean and a root of the covariance of features (N, D), N >= 2."""
    if len(x) < 2 or not bool(x.isfinite().all()):
        raise ValueError(
            f"Cannot fit a Gaussian to features {tuple(x.shape)}: it takes two or more, all finite. Give more samples, or an "
            "earlier checkpoint where a training has diverged."
        )
    x = wide(x)
    rows = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows).R
    return Gaussian(x.mean(0), rows)


def frechet_distance(x: Tensor | Gaussian, y: Tensor | Gaussian) -> float:
    r"""Squared Frechet distance of the Gaussians fitted to two sets of features, computed in fp64.

    .. math:: \lVert \mu_x - \mu_y \rVert^2 + \mathrm{tr}(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2})

    with unbiased covariances. It falls with the number of samples: compare it at equal numbers alone.

    Args:
        x: Features (N, D), N >= 2, or what :func:`fit_gaussian` made of them.
        y: Features (M, D), M >= 2, or the same of them.
    """
    a, b = (z if isinstance(z, Gaussian) else fit_gaussian(z) for z in (x, y))
    # With S = R^T R, tr (S_x S_y)^(1/2) is the sum of singular values of R_x R_y^T: no root of a product is taken.
    trace = torch.linalg.svdvals(a.root @ b.root.T).sum()
    spread = a.root.square().sum() + b.root.square().sum() - 2 * trace
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


class Subsets(NamedTuple):
    """Random subsets of two sets, drawn without repetition: row numbers, each int64 (S, size)."""

    x: Tensor
    y: Tensor


def draw_subsets(num_x: int, num_y: int, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Subsets:
    """Subsets of N and of M rows, cut to the smaller of both."""
    generator = torch.Generator().manual_seed(seed)
    size = min(subset_size, num_x, num_y)
    pairs = [
        [torch.randperm(number, generator=generator)[:size] for number in (num_x, num_y)] for _ in range(num_subsets)
    ]
    return Subsets(*(torch.stack(rows) for rows in zip(*pairs, strict=True)))


def kernel_distance(x: Tensor, y: Tensor, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    r"""Unbiased squared maximum mean discrepancy with the kernel :math:`(x^\top y / D + 1)^3`, mean over subsets (KID).

    Computed in fp64; around 0 for equal distributions, so it can be negative.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        num_subsets: Number of random subsets.
        subset_size: Samples in each, without repetition, cut to N and M.
        seed: Seed of the subsets.
    """
    subsets = draw_subsets(len(x), len(y), num_subsets=num_subsets, subset_size=subset_size, seed=seed)
    return kernel_within(x, subsets.x) + kernel_within(y, subsets.y) - 2 * kernel_between(x, y, subsets)


def kernel_within(x: Tensor, rows: Tensor) -> float:
    """Mean kernel of two different rows of a subset, mean over subsets (S, size) of features (N, D)."""
    num_subsets, size = rows.shape
    if size < 2 or not bool(x.isfinite().all()):
        raise ValueError(
            f"Cannot take the kernel distance of features {tuple(x.shape)}: it compares two or more, all finite. Give more "
            "samples, or an earlier checkpoint where a training has diverged."
        )
    itself = (wide(x).square().sum(1) / x.shape[1] + 1) ** 3
    total = _kernel_sum(x, x, Subsets(rows, rows)) - itself[rows.to(itself.device)].sum()
    return float(total) / (num_subsets * size * (size - 1))


def kernel_between(x: Tensor, y: Tensor, subsets: Subsets) -> float:
    """Mean kernel of a row of x and a row of y, mean over subsets of features (N, D) and (M, D)."""
    return float(_kernel_sum(x, y, subsets)) / (subsets.x.numel() * subsets.y.shape[1])


def _kernel_sum(x: Tensor, y: Tensor, subsets: Subsets) -> Tensor:
    """Sum of the kernel over all pairs of all subsets."""
    x, y = (z.to(float64_device(z.device)) for z in (x, y))
    rows_x, rows_y = (rows.to(x.device) for rows in subsets)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    if len(x) * len(y) > rows_x.numel() * rows_y.shape[1]:
        for i, j in zip(rows_x, rows_y, strict=True):
            total += _kernel(x[i], y[j]).sum()
        return total
    # There are fewer pairs than subsets have together: each is computed once and weighs as often as it occurs.
    in_x, in_y = (
        torch.zeros(len(rows), number, dtype=torch.float64, device=x.device).scatter_(1, rows, 1.0)
        for rows, number in ((rows_x, len(x)), (rows_y, len(y)))
    )
    for part, weight in zip(x.split(_CHUNK), in_x.split(_CHUNK, dim=1), strict=True):
        total += (_kernel(part, y) * (weight.T @ in_y)).sum()
    return total


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (wide(x) @ wide(y).T / x.shape[1] + 1) ** 3
