"""A tag for every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import full_precision
from ssl_lab.tasks.text import TextTask, trim
from ssl_lab.types import Batch


@final
class TokenClassification(TextTask):
    """A linear head on the state of each word's first token, trained with cross entropy over all words.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of the states.

    Raises:
        ValueError: If the data has no tags.

    References:
        Devlin et al., BERT (2018), section 5.3. arXiv:1810.04805
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("token_labels",)
    source_of_classes: ClassVar[str] = "Choose data=token_labels"

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        assert encoder.spec.num_classes is not None
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.embed_dim, encoder.spec.num_classes))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, classify the words."""
        batch = trim(batch, "token_labels")
        known = batch["token_labels"] >= 0
        logits = self.head(self.hidden(batch)[known])
        total = F.cross_entropy(full_precision(logits), batch["token_labels"][known], reduction="sum")
        return self.mean_over_targets(total, known.sum())

    def predict_tags(self, batch: Batch) -> Tensor:
        """The most probable tag at every position (B, L); 0 in padding, -1 where a score is not finite."""
        logits = self.head(self.hidden(trim(batch)))
        tags = logits.argmax(-1).masked_fill(~logits.isfinite().all(-1), -1)
        return F.pad(tags, (0, batch["input_ids"].shape[1] - tags.shape[1]))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and tags."""
        return {**super().capabilities(), "tags": self.in_eval_mode(torch.no_grad()(self.predict_tags))}
