"""Losses that predict the projection of one view from another, and a sign of their collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    r"""Negative cosine similarity of predictions and targets, in fp32 whatever the autocast precision.

    .. math:: \mathcal{D}(p, z) = -\frac{1}{B} \sum_i \frac{p_i}{\lVert p_i \rVert} \cdot \frac{z_i}{\lVert z_i \rVert}

    Gradients flow into both: detach the target where the method stops them.

    Args:
        p: Predictions, shape (B, D), any scale.
        z: Targets, shape (B, D); row i is the target of row i.

    Returns:
        Scalar in [-1, 1], mean over B.

    Raises:
        ValueError: If shapes differ.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020), eq. 1. arXiv:2011.10566
    """
    if p.shape != z.shape or p.ndim != 2:
        raise ValueError(
            f"Predictions and targets need equal shapes (B, D), found {tuple(p.shape)} and {tuple(z.shape)}. Let the "
            "predictor's output be as wide as the projections."
        )
    with torch.autocast(p.device.type, enabled=False):
        return -(_unit(p) * _unit(z)).sum(1).mean()


def normalised_mse(p: Tensor, z: Tensor) -> Tensor:
    r"""Squared distance of predictions and targets on the unit sphere, in fp32 whatever the autocast precision.

    .. math:: \Big\lVert \frac{p_i}{\lVert p_i \rVert} - \frac{z_i}{\lVert z_i \rVert} \Big\rVert^2 = 2 - 2 \cos(p_i, z_i)

    Args:
        p: Predictions, shape (B, D), any scale.
        z: Targets, shape (B, D); row i is the target of row i.

    Returns:
        Scalar in [0, 4], mean over B.

    Raises:
        ValueError: If shapes differ.

    References:
        Grill et al., Bootstrap Your Own Latent (2020), eq. 2. arXiv:2006.07733
    """
    return 2 + 2 * negative_cosine(p, z)


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    r"""Distance of projections from collapse: 1 if they point in all directions evenly, 0 if all point the same way.

    .. math:: \sqrt{D}\, \frac{1}{D} \sum_j \mathrm{std}_i\, \frac{z_{ij}}{\lVert z_i \rVert}

    Args:
        z: Projections, shape (B, D), B >= 2, any scale.

    Returns:
        Scalar, without gradient.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020), section 4.1. arXiv:2011.10566
    """
    with torch.autocast(z.device.type, enabled=False):
        return z.shape[1] ** 0.5 * _unit(z).std(0).mean()


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
