"""Losses that pull views of one sample together and push others apart."""

from __future__ import annotations

import math

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
        ValueError: If shapes differ, there are fewer than two samples, or temperature is not positive.

    References:
        Chen et al., A Simple Framework for Contrastive Learning (2020), eq. 1. arXiv:2002.05709
    """
    if z_a.shape != z_b.shape or z_a.ndim != 2:
        raise ValueError(f"Two views need equal shapes (B, D), found {tuple(z_a.shape)} and {tuple(z_b.shape)}.")
    _check_negatives(len(z_a))
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, found {temperature}.")
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
        ValueError: If shapes do not fit, there are fewer than two candidates, or temperature is not positive.

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
    _check_negatives(len(candidates))
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, found {temperature}.")
    with torch.autocast(anchors.device.type, enabled=False):
        dtype = torch.promote_types(anchors.dtype, torch.float32)
        similarities = F.normalize(anchors.to(dtype), dim=1) @ F.normalize(candidates.to(dtype), dim=1).T
        return F.cross_entropy(similarities / temperature, torch.arange(len(anchors), device=anchors.device))


def queue_info_nce(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    r"""InfoNCE in which every query is to find its key among the keys of former batches.

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i/\tau)}{\exp(q_i \cdot k_i/\tau) + \sum_j \exp(q_i \cdot n_j/\tau)}

    where q, k and the queue's n are scaled to unit length and :math:`\tau` is ``temperature``. The keys of other queries
    are no negatives, so the loss of a batch is the mean over its parts. Similarities are computed in fp32 whatever the
    autocast precision.

    Args:
        queries: Projections of the student, shape (B, D), any scale.
        keys: Projections of the teacher, shape (B, D), any scale; row i is the positive of row i.
        queue: Former keys, the negatives of all queries, shape (K, D), any scale.
        temperature: Softmax temperature, > 0 (paper: 0.2).

    Returns:
        Scalar, mean over B queries, in nats.

    Raises:
        ValueError: If shapes do not fit, the queue is empty, or temperature is not positive.

    References:
        He et al., Momentum Contrast (2019), eq. 1. arXiv:1911.05722
    """
    if queries.shape != keys.shape or queries.ndim != 2 or queue.ndim != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(
            f"Queries, keys and queue need shapes (B, D), (B, D) and (K, D), found {tuple(queries.shape)}, "
            f"{tuple(keys.shape)} and {tuple(queue.shape)}."
        )
    if len(queue) < 1:
        raise ValueError("The keys of the queue are the negatives, found none. Set method.queue_size to 1 or more.")
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, found {temperature}.")
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        q, k, n = (F.normalize(x.to(dtype), dim=1) for x in (queries, keys, queue))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def supcon(z_a: Tensor, z_b: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    r"""Supervised contrastive loss: the positives of a view are all views of its class, averaged outside the logarithm.

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{\exp(s_{i,p}/\tau)}{\sum_{k \ne i} \exp(s_{i,k}/\tau)}

    where :math:`s` is cosine similarity over the 2B projections, P(i) are the other views of i's class and :math:`\tau` is
    ``temperature``: the paper's L_out. With a class for every image it is NT-Xent. Similarities are computed in fp32
    whatever the autocast precision. The published code multiplies by the temperature over 0.07; we do not.

    Args:
        z_a: Projections of the first view, shape (B, D), any scale.
        z_b: Projections of the second view, shape (B, D); row i shows the image of row i.
        labels: Class of each image, int64 (B,); a negative one is unknown, and the image is then a class of its own.
        temperature: Softmax temperature, > 0 (paper: 0.1).

    Returns:
        Scalar, mean over 2B anchors, in nats.

    Raises:
        ValueError: If shapes do not fit, there are fewer than two samples, or temperature is not positive.

    References:
        Khosla et al., Supervised Contrastive Learning (2020), eq. 2. arXiv:2004.11362
    """
    if z_a.shape != z_b.shape or z_a.ndim != 2 or labels.shape != z_a.shape[:1]:
        raise ValueError(
            f"Two views and their labels need shapes (B, D), (B, D) and (B,), found {tuple(z_a.shape)}, "
            f"{tuple(z_b.shape)} and {tuple(labels.shape)}."
        )
    _check_negatives(len(z_a))
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, found {temperature}.")
    with torch.autocast(z_a.device.type, enabled=False):
        z = torch.cat([z_a, z_b])
        z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(-torch.inf)
        own = -1 - torch.arange(len(labels), device=labels.device)
        classes = torch.where(labels < 0, own, labels).repeat(2)
        positive = classes.unsqueeze(0) == classes.unsqueeze(1)
        positive.fill_diagonal_(False)
        log_prob = F.log_softmax(logits, 1).masked_fill(~positive, 0)
        return -(log_prob.sum(1) / positive.sum(1)).mean()


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
        ValueError: If shapes differ or there are fewer than two pairs.

    References:
        Radford et al., CLIP (2021), figure 3. arXiv:2103.00020
    """
    if z_image.shape != z_text.shape or z_image.ndim != 2:
        raise ValueError(
            f"Images and texts need equal shapes (B, D), found {tuple(z_image.shape)} and {tuple(z_text.shape)}."
        )
    _check_negatives(len(z_image))
    with torch.autocast(z_image.device.type, enabled=False):
        dtype = torch.promote_types(z_image.dtype, torch.float32)
        similarities = F.normalize(z_image.to(dtype), dim=1) @ F.normalize(z_text.to(dtype), dim=1).T
        logits = logit_scale.to(dtype) * similarities
        partners = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2


def _check_negatives(num_samples: int) -> None:
    """A softmax over the right answer alone is always right: loss and gradient are 0 whatever the network."""
    if num_samples < 2:
        raise ValueError(
            f"A contrastive loss tells a sample from others of the batch of all ranks, found {num_samples} in it. Raise "
            "data.batch_size or the number of devices to at least 2 samples a step."
        )
