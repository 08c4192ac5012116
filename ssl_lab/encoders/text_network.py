"""A language model of transformers as an encoder of texts."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from ssl_lab.encoders.network import reset
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch, Encoder, Spec


class TextNetwork(Encoder):
    """A model of transformers without its head; features are the mean of its last states over the tokens.

    Args:
        network: Takes ``input_ids`` and ``attention_mask``.
        spec: The text data, by the model's own tokenizer.

    Raises:
        ValueError: If the data are no texts, or the tokenizer has more ids than the model.
    """

    def __init__(self, network: Any, spec: Spec) -> None:
        super().__init__()
        self.spec = TextSpec.of(spec, type(network).__name__)
        table = network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
        if table is None:
            raise ValueError(
                f"Cannot use {type(network).__name__} on texts: it is not a language model of transformers. "
                "Give one, such as AutoModel.from_pretrained(folder), or wrap yours as an encoder of ssl_lab."
            )
        if self.spec.vocab_size > table.num_embeddings:
            raise ValueError(
                f"Cannot use {type(network).__name__} on these texts: its vocabulary has {table.num_embeddings:,} ids, the "
                f"tokenizer {self.spec.vocab_size:,}. Give the model's own tokenizer: "
                "tokenizer=AutoTokenizer.from_pretrained(...)."
            )
        self.network: Any = getattr(network, "base_model", network)
        self.embed_dim = table.embedding_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Features (B, D) of token ids (B, L)."""
        states = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's texts."""
        return self(batch["input_ids"], batch["attention_mask"])  # type: ignore[no-any-return]

    def fresh(self) -> TextNetwork:
        """A copy with random weights, as the model's own initialisation draws them."""
        other = copy.deepcopy(self)
        reset(other.network)
        return other
