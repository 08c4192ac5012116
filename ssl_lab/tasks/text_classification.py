"""Classes of texts."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

from torch import Tensor, nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import Optim
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.text import TextTask
from ssl_lab.types import Batch, Encoder

Head: TypeAlias = Literal["modernbert", "bert"]


@final
class TextClassification(TextTask, Classification):
    """A head on an encoder's states, trained with cross entropy; rows without a label are left out.

    ModernBERT's head reads the pooled states: a linear layer as wide as they are, GELU, layer normalisation, a linear layer.
    BERT's reads the first token's state: a linear layer, tanh, a linear layer. transformers loads the latter for BERT and
    RoBERTa.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Before the last layer of the head.
        head: ``modernbert`` or ``bert``.

    Raises:
        ValueError: If the data has no classes, there is no such head, or the first token has seen no other.

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
        head: Head = "modernbert",
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        if head not in ("modernbert", "bert"):
            raise ValueError(f"There is no method.head={head}. Choose modernbert or bert.")
        if head == "bert" and encoder.objective == "causal":
            raise ValueError(
                f"Cannot use method.head=bert: the first token of a {encoder.config.model_type} has seen nothing but itself. "
                "Choose method.head=modernbert."
            )
        self.head_kind = head
        if head == "bert":
            dim, *_, last = encoder.embed_dim, *self.head.children()
            self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Dropout(dropout), last)

    def pooled(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The features, or for BERT's head the state of the first token (B, D)."""
        return self.hidden(batch)[:, 0] if self.head_kind == "bert" else encoder.embed(batch)

    def make_head(self, dim: int, num_classes: int, dropout: float) -> nn.Module:
        """ModernBERT's head."""
        return nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, num_classes)
        )
