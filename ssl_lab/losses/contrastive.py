"""Losses that pull views of one sample together and push others apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(z_a: Tensor, z_b: Tensor, *, temperature: float) -> Tensor:
    r"""Normalised temperature-scaled cross entropy between two views.

    .. math:: \ell_i = -\log \frac{\exp(s_{i,p(i)}/\tau)}{\sum_{k \ne i} \exp(s_{i,k}/\tau)}

    where :math:`s` is cosine similarity over the 2B projections and :math:`\tau` is ``temperature``. Similarities are
    computed in fp32 whatever the autocast precision.

    Args:
        z_a: Projections of the first view, shape (B, D), any scale.
        z_b: Projections of the second view, shape (B, D); row i is the positive of row i.
        temperature: Softmax temperature, > 0 (paper: 0.1 ImageNet, 0.5 CIFAR-10).

    Returns:
        Scalar, mean over 2B anchors, in nats.

    Raises:
        ValueError: If shapes differ or temperature is not positive.

    References:
        Chen et al., A Simple Framework for Contrastive Learning (2020), eq. 1. arXiv:2002.05709
    """
    if z_a.shape != z_b.shape or z_a.ndim != 2:
        raise ValueError(f"Two views need equal shapes (B, D), found {tuple(z_a.shape)} and {tuple(z_b.shape)}.")
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive, found {temperature}.")
    with torch.autocast(z_a.device.type, enabled=False):
        z = torch.cat([z_a, z_b])
        z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(-torch.inf)
        positives = torch.arange(len(z), device=z.device).roll(len(z_a))
        return F.cross_entropy(logits, positives)
