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


def in_batch_info_nce(anchors: Tensor, candidates: Tensor, *, temperature: float) -> Tensor:
    r"""InfoNCE in one direction: every anchor is to find its own candidate among those of the whole batch.

    .. math:: \ell_i = -\log \frac{\exp(s_{i,i}/\tau)}{\sum_{j=1}^{M} \exp(s_{i,j}/\tau)}

    where :math:`s_{i,j}` is the cosine similarity of anchor i and candidate j and :math:`\tau` is ``temperature``. With
    hard negatives appended to the positives this is eq. 5 of the paper, without them eq. 4. Similarities are computed in
    fp32 whatever the autocast precision.

    Args:
        anchors: Projections, shape (B, D), any scale.
        candidates: Projections, shape (M, D), M >= B; row i < B is the positive of anchor i, further rows are
            negatives of all.
        temperature: Softmax temperature, > 0 (paper: 0.05).

    Returns:
        Scalar, mean over B anchors, in nats.

    Raises:
        ValueError: If shapes do not fit or temperature is not positive.

    References:
        Gao et al., SimCSE (2021), eq. 4 and 5. arXiv:2104.08821
    """
    if anchors.ndim != 2 or candidates.ndim != 2 or anchors.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"Anchors and candidates need shapes (B, D) and (M, D), found {tuple(anchors.shape)} and "
            f"{tuple(candidates.shape)}."
        )
    if len(candidates) < len(anchors):
        raise ValueError(f"Every anchor needs a candidate, found {len(candidates)} for {len(anchors)} anchors.")
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive, found {temperature}.")
    with torch.autocast(anchors.device.type, enabled=False):
        dtype = torch.promote_types(anchors.dtype, torch.float32)
        similarities = F.normalize(anchors.to(dtype), dim=1) @ F.normalize(candidates.to(dtype), dim=1).T
        return F.cross_entropy(similarities / temperature, torch.arange(len(anchors), device=anchors.device))


def clip_loss(z_image: Tensor, z_text: Tensor, *, logit_scale: Tensor) -> Tensor:
    r"""Symmetric InfoNCE between images and texts: each finds its partner among all of the other kind.

    .. math:: \frac{1}{2B} \sum_i \left[ -\log \frac{\exp(\gamma s_{i,i})}{\sum_j \exp(\gamma s_{i,j})}
        - \log \frac{\exp(\gamma s_{i,i})}{\sum_j \exp(\gamma s_{j,i})} \right]

    where :math:`s_{i,j}` is the cosine similarity of image i and text j and :math:`\gamma` is ``logit_scale``, the inverse
    of a temperature. Similarities are computed in fp32 whatever the autocast precision.

    Args:
        z_image: Projections of images, shape (B, D), any scale.
        z_text: Projections of texts, shape (B, D); row i belongs to image i.
        logit_scale: Factor of the similarities, shape (), > 0; learned in the paper, from 1 / 0.07 to at most 100.

    Returns:
        Scalar, mean over both directions and B pairs, in nats.

    Raises:
        ValueError: If shapes differ.

    References:
        Radford et al., CLIP (2021), figure 3. arXiv:2103.00020
    """
    if z_image.shape != z_text.shape or z_image.ndim != 2:
        raise ValueError(
            f"Images and texts need equal shapes (B, D), found {tuple(z_image.shape)} and {tuple(z_text.shape)}."
        )
    with torch.autocast(z_image.device.type, enabled=False):
        dtype = torch.promote_types(z_image.dtype, torch.float32)
        similarities = F.normalize(z_image.to(dtype), dim=1) @ F.normalize(z_text.to(dtype), dim=1).T
        logits = logit_scale.to(dtype) * similarities
        partners = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2
