"""Classes of texts."""

from __future__ import annotations

from typing import final

from torch import nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import Optim
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.text import TextTask


@final
class TextClassification(TextTask, Classification):
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

    def make_head(self, dim: int, num_classes: int, dropout: float) -> nn.Module:
        """ModernBERT's head."""
        return nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, num_classes)
        )
