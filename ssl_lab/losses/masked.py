"""Losses on the masked part of an input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of the chosen tokens, softmax in fp32.

    Args:
        logits: Scores over the vocabulary, shape (M, V), of the M chosen positions.
        targets: Their original ids, int64 (M,).

    Returns:
        Scalar in nats, the sum over M tokens; 0 with a gradient of 0 if M = 0. Divide by the number of masked tokens
        of the *global* batch: a mean over each rank's own tokens would weigh ranks with few of them too heavily.

    References:
        Devlin et al., BERT (2018). arXiv:1810.04805
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="sum")
