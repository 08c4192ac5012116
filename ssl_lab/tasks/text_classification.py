"""Classes of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import FineTuning, check_dropout, full_precision
from ssl_lab.types import Batch


@final
class Classification(FineTuning):
    """A head on the encoder's pooled states, trained with cross entropy; rows without a label are left out.

    The head is ModernBERT's: a linear layer as wide as the states, GELU, layer normalisation, a linear layer.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Before the last layer of the head.

    Raises:
        ValueError: If the data has no classes.

    References:
        Devlin et al., BERT (2018), section 4.1. arXiv:1810.04805
        Warner et al., ModernBERT (2024). arXiv:2412.13663
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze)
        check_dropout(dropout)
        if encoder.spec.num_classes is None:
            raise ValueError(
                "Classification needs texts with labels, but this data has none. Set data.label_column, or choose another "
                "task=."
            )
        dim = encoder.embed_dim
        self.head = nn.Sequential(
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.LayerNorm(dim),
            nn.Dropout(dropout),
            nn.Linear(dim, encoder.spec.num_classes),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, pool, classify."""
        labels = batch["label"]
        total = F.cross_entropy(full_precision(self.logits(batch)), labels, ignore_index=-1, reduction="sum")
        return self.mean_over_targets(total, (labels >= 0).sum())

    def logits(self, batch: Batch) -> Tensor:
        """Scores (B, C) of the classes."""
        pooled = self.encoder.pool(self.hidden(batch), batch["input_ids"], batch["attention_mask"])
        return self.head(pooled)  # type: ignore[no-any-return]

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and scores of classes."""
        return {**super().capabilities(), "class_logits": self.in_eval_mode(torch.no_grad()(self.logits))}
