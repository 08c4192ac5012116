"""Losses on the statistics of a batch: views agree, and the dimensions of their projections say different things."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def barlow_twins(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compute the distance of the cross-correlation of two views from the identity.

    .. math:: \sum_i (1 - C_{ii})^2 \quad\text{and}\quad \sum_{i \ne j} C_{ij}^2, \qquad
        C_{ij} = \frac{1}{B} \sum_b \hat z^a_{b,i}\, \hat z^b_{b,j}

    where :math:`\hat z` is z standardised over the batch, each view by itself, as batch normalisation does it (biased
    variance, plus 1e-5). The statistics are computed in fp32 whatever the autocast precision.

    Args:
        z_a: Projections of the first view, shape (B, D).
        z_b: Projections of the second view, shape (B, D); row i shows the same sample.

    Returns:
        Two scalars: invariance, the sum over the diagonal, and redundancy, the sum over all else. The paper minimises
        invariance + 0.0051 redundancy.

    Raises:
        ValueError: If shapes differ or there are fewer than two samples.

    References:
        Zbontar et al., Barlow Twins (2021), eq. 1 and 2. arXiv:2103.03230
    """
    _check_views(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = (F.batch_norm(_at_least_fp32(z), None, None, training=True) for z in (z_a, z_b))
        c = z_a.T @ z_b / len(z_a)
        return (1 - c.diagonal()).square().sum(), _off_diagonal(c).square().sum()


def vicreg(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Invariance, variance and covariance of two views.

    .. math:: \frac{1}{BD} \lVert Z^a - Z^b \rVert^2, \qquad
        \frac{1}{2} \sum_v \frac{1}{D} \sum_j \max\Big(0, 1 - \sqrt{\mathrm{Var}(z^v_j) + 10^{-4}}\Big), \qquad
        \sum_v \frac{1}{D} \sum_{i \ne j} \mathrm{Cov}(z^v_i, z^v_j)^2

    with unbiased variance and covariance over the batch. As in the published code the first term is a mean over
    dimensions and the second a mean over views, where the paper's equations sum. Computed in fp32 whatever the autocast
    precision.

    Args:
        z_a: Projections of the first view, shape (B, D).
        z_b: Projections of the second view, shape (B, D); row i shows the same sample.

    Returns:
        Three scalars: invariance, variance and covariance. The paper minimises 25 invariance + 25 variance + covariance.

    Raises:
        ValueError: If shapes differ or there are fewer than two samples.

    References:
        Bardes et al., VICReg (2021), eq. 1 to 6. arXiv:2105.04906
    """
    _check_views(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        views = _at_least_fp32(z_a), _at_least_fp32(z_b)
        invariance = F.mse_loss(views[0], views[1])
        variance = torch.stack([F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in views]).mean()
        covariance = torch.stack(
            [_off_diagonal(z.T.cov().view(z.shape[1], -1)).square().sum() / z.shape[1] for z in views]
        ).sum()
    return invariance, variance, covariance


def _off_diagonal(x: Tensor) -> Tensor:
    """All but the diagonal of a square matrix (D, D): without its first entry, every (D + 1)-th lies on the diagonal."""
    return x.flatten()[1:].view(len(x) - 1, len(x) + 1)[:, :-1]


def _at_least_fp32(z: Tensor) -> Tensor:
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _check_views(z_a: Tensor, z_b: Tensor) -> None:
    if z_a.shape != z_b.shape or z_a.ndim != 2 or len(z_a) < 2 or z_a.shape[1] < 1:
        raise ValueError(
            f"Statistics over a batch need two views of equal shapes (B, D), B >= 2 and D >= 1, found {tuple(z_a.shape)} and "
            f"{tuple(z_b.shape)}."
        )
