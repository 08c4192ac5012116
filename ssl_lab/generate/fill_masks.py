"""Filling the blanks of a text with a masked language model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.modalities.text import TextSpec


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A token for a mask, and the probability that the model gives it there with all masks in place."""

    token: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """Text with a model's predictions in place of masks.

    Attributes:
        guesses: For each mask, in the order of the text, the most probable tokens, the best first.
        completed: The text with all masks filled, as the tokenizer writes it.
    """

    guesses: tuple[tuple[Guess, ...], ...]
    completed: str


def fill_masks(
    predict_masked: Callable[[Tensor, Tensor, Tensor], Tensor],
    tokenizer: PreTrainedTokenizerFast,
    spec: TextSpec,
    text: str,
    *,
    top_k: int = 5,
    device: torch.device,
) -> FilledText:
    """The most probable tokens for each mask of a text, and the text with its masks filled one after another.

    Guesses see the text with all masks in place. The completed text is filled from the mask that the model is surest of
    to the least sure one, each time with the tokens so far in their places, as in mask-predict with one token a step
    (Ghazvininejad et al., 2019, arXiv:1904.09324). Special tokens are never guessed, but keep their share of the
    probability.

    Args:
        predict_masked: ``(input_ids, attention_mask, positions)`` to scores (M, V) at the M chosen positions.
        tokenizer: The run's tokenizer; its mask token in the text is a mask, whatever else it does with special tokens.
        spec: The run's data: the length of a text and its special tokens.
        text: A text that contains the tokenizer's mask token at least once.
        top_k: Number of guesses for a mask.
        device: Where the model is.

    Raises:
        ValueError: If the text has no mask or is longer than those that the model has learned from, or ``top_k`` is not
            between 1 and the number of words.
    """
    words = _words(spec)
    if not 1 <= top_k <= len(words):
        raise ValueError(f"Cannot use top_k={top_k}: the run has {len(words)} tokens. Choose 1 to {len(words)}.")
    ids = _ids(tokenizer, spec, text).to(device)
    is_mask = ids[0].eq(_mask_id(spec))
    everything = torch.ones_like(ids)

    def probabilities() -> Tensor:
        return predict_masked(ids, everything, is_mask.unsqueeze(0)).float().softmax(-1)[:, words.to(device)]

    found = probabilities()
    check_finite(found, what="Scores")
    best = found.topk(top_k)
    guesses = tuple(
        tuple(
            Guess(token=_written(tokenizer, int(words[word])), probability=float(p))
            for p, word in zip(*row, strict=True)
        )
        for row in zip(best.values, best.indices.cpu(), strict=True)
    )
    while is_mask.any():
        surest = int(found.amax(1).argmax())
        place = is_mask.nonzero()[surest, 0]
        ids[0, place] = words[int(found[surest].argmax())]
        is_mask[place] = False
        if is_mask.any():
            found = probabilities()
    return FilledText(guesses=guesses, completed=str(tokenizer.decode(ids[0], skip_special_tokens=True)).strip())


def _mask_id(spec: TextSpec) -> int:
    assert spec.mask_id is not None
    return spec.mask_id


def _words(spec: TextSpec) -> Tensor:
    return torch.tensor(sorted(set(range(spec.vocab_size)) - set(spec.special_ids)))


def _ids(tokenizer: PreTrainedTokenizerFast, spec: TextSpec, text: str) -> Tensor:
    """Ids (1, L) with masks."""
    if spec.continues_word:  # where a word's token carries the space before it, the mask stands for both
        text = re.sub(rf"\s+(?={re.escape(str(tokenizer.mask_token))})", "", text)
    # Tokenizers that are trained here read special tokens in a text as plain characters unless told otherwise.
    ids = tokenizer(text, split_special_tokens=False, return_tensors="pt")["input_ids"]
    assert isinstance(ids, Tensor)
    if not ids.eq(_mask_id(spec)).any():
        raise ValueError(
            f"Cannot fill a mask: text={text!r} has none. Write {tokenizer.mask_token} where a word is missing."
        )
    limit = spec.length
    if ids.shape[1] > limit:
        raise ValueError(
            f"The text has {ids.shape[1]} tokens, special ones included, but the run was trained on at most {limit}. "
            "Shorten it."
        )
    return ids


def _written(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """A token as readable text; as the vocabulary spells it where it is not text by itself."""
    text = str(tokenizer.decode([token])).strip()
    return text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(token))
