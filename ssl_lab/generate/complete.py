"""Continue prompts with a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.modalities.text import TextSpec


def complete(
    generate: Callable[..., Tensor],
    tokenizer: PreTrainedTokenizerFast,
    spec: TextSpec,
    prompt: str,
    *,
    max_new_tokens: int = 50,
    seed: int = 0,
    device: torch.device,
    **drawing: Any,
) -> list[str]:
    """Continue a prompt.

    Where a text reaches the length the model has learned from, the model continues from the text's last half of that length.

    Args:
        generate: ``CausalLM.generate``: ids (1 or N, L) and settings to ids (N, M).
        tokenizer: The run's tokenizer.
        spec: The run's data: the length of the model's context, and what ends a text.
        prompt: How a text begins; special tokens in it are plain characters.
        max_new_tokens: When to stop texts that do not end before.
        seed: The same seed draws the same texts.
        device: Where the model is.
        drawing: Further settings of ``generate``.

    Raises:
        ValueError: If the prompt is empty, or as long as what the model has learned from.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError("Cannot continue a text: prompt= is empty. Give at least one word.")
    length = spec.length
    if len(ids) >= length:
        raise ValueError(
            f"The prompt has {len(ids)} tokens, but the run was trained on at most {length}. Shorten the prompt."
        )
    texts = torch.tensor([ids], device=device)
    wanted = len(ids) + max_new_tokens
    end = -1 if spec.eos_id is None else spec.eos_id
    seeds = torch.Generator().manual_seed(seed)
    while True:
        context = texts if texts.shape[1] < length else texts[:, -(length // 2) :]
        more = min(wanted - texts.shape[1], length - context.shape[1])
        drawn = generate(context, max_new_tokens=more, seed=seed, **drawing)
        before = texts.expand(len(drawn), -1)
        texts = torch.cat([before, drawn[:, context.shape[1] :]], dim=1)
        ended = texts[:, len(ids) :].eq(end).any(1)
        if texts.shape[1] >= wanted or ended.all():
            break
        seed = int(torch.randint(2**32, (), generator=seeds))  # not the same numbers again
    return [str(tokenizer.decode(_until(text, end, len(ids)), skip_special_tokens=True)) for text in texts]


def _until(text: Tensor, end: int, start: int) -> Tensor:
    """A text (L,) up to the first token ``end`` from ``start`` on."""
    ends = text[start:].eq(end).nonzero()
    return text[: start + int(ends[0])] if len(ends) else text
