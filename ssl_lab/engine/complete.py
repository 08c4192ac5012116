"""Texts that go on with a prompt, by a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.types import DataSpec

MAX_NEW_TOKENS = 50  # unless asked for more or less


def complete(
    generate: Callable[..., Tensor],
    tokenizer: PreTrainedTokenizerFast,
    spec: DataSpec,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    device: torch.device,
    **drawing: Any,
) -> list[str]:
    """Texts that begin with a prompt.

    Args:
        generate: ``CausalLM.generate``: ids (1, L) and settings to ids (N, M).
        tokenizer: The run's tokenizer.
        spec: The run's data: how long a text may be.
        prompt: How a text begins; special tokens in it are plain characters.
        max_new_tokens: When to stop texts that do not end before; None for 50, or less where there is less room.
        device: Where the model is.
        drawing: Further settings of ``generate``.

    Raises:
        ValueError: If the prompt is empty, or it and the new tokens are longer than the texts the model has learned from.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError("A text goes on with a prompt, but prompt= is empty. Give at least one word.")
    room = spec.shape[0] - len(ids)
    if room < (max_new_tokens or 1):
        raise ValueError(
            f"The prompt has {len(ids)} tokens and {max_new_tokens or MAX_NEW_TOKENS} more were asked for, but the run has "
            f"learned from at most {spec.shape[0]}. Shorten the prompt, or lower max_new_tokens."
        )
    if max_new_tokens is None:
        max_new_tokens = min(MAX_NEW_TOKENS, room)
    drawn = generate(torch.tensor([ids], device=device), max_new_tokens=max_new_tokens, **drawing)
    return [str(tokenizer.decode(text, skip_special_tokens=True)) for text in drawn]
