"""Token ids of texts, and how many of them the tokenizer does not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.columns import Column

_ROWS_READ = 1000


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, max_length: int) -> Tensor:
    """Padded ids of texts with class and separator tokens, in the smallest signed integer type that holds them.

    Args:
        tokenizer: The tokenizer.
        texts: N texts, at least one.
        max_length: Tokens of a row, special tokens included; the rest of a longer text is left out.

    Returns:
        Ids (N, max_length).
    """
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding="max_length",
        padding_side="right",
        return_tensors="pt",
    )
    fits_16_bits = len(tokenizer) <= torch.iinfo(torch.int16).max
    return encoded["input_ids"].to(torch.int16 if fits_16_bits else torch.int32)  # type: ignore[no-any-return]


def unknown_share(tokenizer: PreTrainedTokenizerFast, ids: Column) -> float:
    """Return the share of tokens that the tokenizer does not know, in up to 1,000 rows spread over a column.

    Args:
        tokenizer: The tokenizer.
        ids: Padded ids (N, max_length).

    Returns:
        The share in [0, 1]; 0 if the unknown token is also another one, as GPT-2's.
    """
    names = ("pad", "eos", "bos", "cls", "sep", "mask")
    unknown = tokenizer.unk_token_id
    if unknown in {None, *(getattr(tokenizer, f"{name}_token_id") for name in names)}:
        return 0.0
    rows = np.unique(np.linspace(0, len(ids) - 1, _ROWS_READ).astype(np.int64))
    found = np.asarray(ids[rows])
    num_unknown = int((found == unknown).sum())
    num_known = int((~np.isin(found, tokenizer.all_special_ids)).sum())
    return num_unknown / max(1, num_unknown + num_known)
