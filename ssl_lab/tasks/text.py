"""Shared parts of the tasks on text encoders."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ssl_lab.encoders.text_configs import max_length_of
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tasks.base import FineTuning
from ssl_lab.types import Batch, Spec


class TextTask(FineTuning):
    """A task that reads the states of a text encoder."""

    takes: ClassVar[type[Spec] | None] = TextSpec
    encoder: TextTransformer

    def check(self, spec: Spec) -> None:
        """Refuse rows that are longer than the encoder's table of positions."""
        super().check(spec)
        num_texts = 2 if "second_input_ids" in self.needs_columns else 1
        length = num_texts * spec.shape[0]
        limit = max_length_of(self.encoder.config)
        if limit is not None and length > limit:
            raise ValueError(
                f"Cannot read rows of {length} tokens: the encoder has {limit} positions. Lower data.max_length to "
                f"{limit // num_texts}."
            )

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states (B, L, D); BERT also reads ``token_type_ids`` where the batch has them."""
        types = batch.get("token_type_ids")
        return self.encoder(batch["input_ids"], batch["attention_mask"], token_type_ids=types)  # type: ignore[no-any-return]


def trim(batch: Batch, *names: str, multiple: int = 8) -> dict[str, Tensor]:
    """On the CPU, the batch without the last columns that are padding in all of its rows; a GPU would have to be waited for.

    Args:
        batch: With ``input_ids`` and ``attention_mask`` (B, L).
        names: Further columns (B, L, ...) to cut alike.
        multiple: The length that is left is a multiple of it, or L.
    """
    if batch["attention_mask"].device.type != "cpu":
        return dict(batch)
    longest = max(1, int(batch["attention_mask"].sum(1).max()))
    length = min(batch["input_ids"].shape[1], -(-longest // multiple) * multiple)
    cut = ("input_ids", "attention_mask", "token_type_ids", *names)
    return {name: column[:, :length] if name in cut else column for name, column in batch.items()}
