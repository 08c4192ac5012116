"""Features without any learning, as a baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.encoders.image import as_float
from ssl_lab.types import Batch, DataSpec


def raw_features(spec: DataSpec) -> Callable[[Batch], Tensor]:
    """A function from a batch to raw features (B, D).

    Images, with captions or without: all pixels in [0, 1]. Text: how often each word of the vocabulary occurs, scaled to
    length 1, specials left out.
    """
    if spec.modality != "text":
        return lambda batch: as_float(batch["image"]).flatten(1)

    def count_words(batch: Batch) -> Tensor:
        assert spec.vocab_size is not None
        ids = batch["input_ids"]
        counts = torch.zeros(len(ids), spec.vocab_size, device=ids.device)
        counts.scatter_add_(1, ids, batch["attention_mask"].float())
        counts[:, list(spec.special_ids)] = 0
        return F.normalize(counts, dim=1)

    return count_words
