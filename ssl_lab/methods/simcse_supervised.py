"""Supervised SimCSE: a text finds its partner among those of all others, and among hard negatives."""

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


@final
class SimCSESupervised(Method):
    """Supervised SimCSE: pairs of texts such as a premise and its entailment, with a contradiction as hard negative.

    Without ``negative_input_ids`` in the data the other texts' partners are the only negatives. As in the paper the
    head is part of the features, other than without supervision.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        temperature: Softmax temperature.

    Raises:
        ValueError: If the temperature is not positive.

    References:
        Gao et al., SimCSE: Simple Contrastive Learning of Sentence Embeddings (2021), section 4. arXiv:2104.08821
    """

    takes: ClassVar[type[Spec] | None] = TextSpec
    needs_columns: ClassVar[tuple[str, ...]] = ("second_input_ids",)
    columns_from: ClassVar[Mapping[str, str]] = {"second_input_ids": "data=text_pairs for pairs of texts"}
    coupled_by: ClassVar[str] = "the partners of all other texts of the batch are its negatives"

    def __init__(self, encoder: Encoder, optim: Optim, *, temperature: float = 0.05) -> None:
        super().__init__(encoder, optim)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.head = nn.Sequential(nn.Linear(encoder.embed_dim, encoder.embed_dim), nn.Tanh())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """All texts in one forward; each first text finds its second among all ranks' second texts and negatives."""
        z, *candidates = (distributed.gather(z) for z in self.project(batch))
        return self.log_losses(in_batch_info_nce(z, torch.cat(candidates), temperature=self.temperature))

    def project(self, batch: Batch) -> tuple[Tensor, ...]:
        """Projections of the first and second texts and of the hard negatives, if there are any, each (B, D)."""
        kinds = [kind for kind in ("", "second_", "negative_") if f"{kind}input_ids" in batch]
        texts = {name: torch.cat([batch[kind + name] for kind in kinds]) for name in ("input_ids", "attention_mask")}
        return self.represent(texts).chunk(len(kinds))

    def represent(self, batch: Batch) -> Tensor:
        """The encoder's features through the head."""
        return self.head(self.encoder.embed(batch))  # type: ignore[no-any-return]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Cosine similarities of the first and second texts of 32 pairs, black at 0 or below and white at 1."""
        first, second, *_ = self.in_eval_mode(self.project)({name: column[:32] for name, column in batch.items()})
        similarities = F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T
        images = similarities.clamp(0, 1)[None, None, None]
        return {"similarities": ImageGrid(images=images, caption=CAPTIONS["similarities"])}
