"""Cross entropy of tokens, as sums to be divided by a number of tokens that one process alone does not know."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The label of a position that is not to be predicted."""


def token_cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each token, softmax in fp32.

    Args:
        logits: Scores over the vocabulary, shape (..., V).
        labels: The right ids, int64 (...); :data:`IGNORED` where nothing is to be predicted.

    Returns:
        Nats, shape (...); 0 where the label is ignored.

    Raises:
        ValueError: If the vocabulary has one token.
    """
    _check_vocabulary(logits)
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
        losses = F.cross_entropy(scores, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(labels)


def token_cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed cross entropy of tokens, softmax in fp32.

    Args:
        logits: Scores over the vocabulary, shape (..., V).
        labels: The right ids, int64 (...); :data:`IGNORED` where nothing is to be predicted.

    Returns:
        Scalar in nats; 0 with a gradient of 0 if nothing is to be predicted. Divide by the number of predicted tokens of
        the *global* batch: a mean over each rank's own tokens would weigh ranks with few of them too heavily.

    Raises:
        ValueError: If the vocabulary has one token.

    References:
        Devlin et al., BERT (2018). arXiv:1810.04805
    """
    _check_vocabulary(logits)
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
        return F.cross_entropy(scores, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def _check_vocabulary(logits: Tensor) -> None:
    if logits.shape[-1] < 2:
        raise ValueError(
            f"Tokens are predicted out of a vocabulary of at least 2, found logits {tuple(logits.shape)}: the only token is "
            "always right."
        )
