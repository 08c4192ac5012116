"""SimCSE: dropout alone makes two views of a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.losses.contrastive import in_batch_info_nce
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, ImageGrid, Picture, Spec

TEXT_COLUMNS = ("input_ids", "attention_mask", "document_ids")


@final
class SimCSE(Method):
    """Unsupervised SimCSE: a sentence passes the encoder twice, and the two dropout masks are the only difference.

    The head is used in training only; features are the encoder's, as the paper recommends without labels. The paper
    pools by the class token: set ``encoder.pooling=first`` for it, the encoder's default is the mean over tokens.

    Args:
        encoder: Text encoder with dropout.
        optim: Optimizer and schedule.
        temperature: Softmax temperature.

    Raises:
        ValueError: If the temperature is not positive, or the encoder has no dropout.

    References:
        Gao et al., SimCSE: Simple Contrastive Learning of Sentence Embeddings (2021). arXiv:2104.08821
    """

    takes: ClassVar[type[Spec] | None] = TextSpec
    coupled_by: ClassVar[str] = "all other sentences of the batch are its negatives"
    min_samples: ClassVar[int] = 2

    def __init__(self, encoder: Encoder, optim: Optim, *, temperature: float = 0.05) -> None:
        super().__init__(encoder, optim)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in encoder.modules()):
            raise ValueError(
                f"SimCSE tells two views of a sentence apart by dropout alone, but this {type(encoder).__name__} has "
                "none. Set encoder.dropout=0.1."
            )
        self.temperature = temperature
        self.head = nn.Sequential(nn.Linear(encoder.embed_dim, encoder.embed_dim), nn.Tanh())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two dropout passes in one forward of the doubled batch; the first finds the second among all ranks'."""
        z_a, z_b = self.head(self.encoder.embed(_twice(batch))).chunk(2)
        loss = in_batch_info_nce(distributed.gather(z_a), distributed.gather(z_b), temperature=self.temperature)
        return self.log_losses(loss)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Cosine similarities of the two views of 32 sentences, black at 0 or below and white at 1."""
        rows = {name: column[:32] for name, column in batch.items()}
        z_a, z_b = F.normalize(self.head(self.encoder.embed(_twice(rows))).float(), dim=1).chunk(2)
        images = (z_a @ z_b.T).clamp(0, 1)[None, None, None]
        return {"similarities": ImageGrid(images=images, caption=CAPTIONS["similarities"])}


def _twice(batch: Batch) -> Batch:
    return {name: torch.cat([column] * 2) for name, column in batch.items() if name in TEXT_COLUMNS}
