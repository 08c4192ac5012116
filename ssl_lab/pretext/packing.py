"""Several documents in one row: where each begins, and who may see whom."""

from __future__ import annotations

import torch
from torch import Tensor


def starts_of_documents(document_ids: Tensor) -> Tensor:
    """Where a document begins, bool (B, L), for ids (B, L) that number the documents within each row."""
    first = torch.ones_like(document_ids[:, :1], dtype=torch.bool)
    return torch.cat([first, document_ids[:, 1:] != document_ids[:, :-1]], dim=1)


def positions_in_documents(document_ids: Tensor) -> Tensor:
    """Position of each token in its own document, int64 (B, L): 0, 1, ... from each document's first token on.

    Args:
        document_ids: Number of the document of each token, (B, L); 0 is padding, which is counted like a document.
    """
    positions = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    starts = torch.where(starts_of_documents(document_ids), positions, 0)
    return positions - starts.cummax(1).values


def same_document_mask(document_ids: Tensor) -> Tensor:
    """Mark the pairs of tokens in one document, bool (B, 1, L, L); padding sees padding, so that no row is empty."""
    return (document_ids.unsqueeze(2) == document_ids.unsqueeze(1)).unsqueeze(1)
