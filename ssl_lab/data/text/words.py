"""Tokens of a tokenizer that continue a word."""

from __future__ import annotations

import json

from transformers import PreTrainedTokenizerFast

_SPACE_OF_BYTES, _SPACE_OF_PIECES = "Ġ", "▁"  # how byte-level BPE and SentencePiece write the space before a word
_OTHER_BLANKS = ("Ċ", "ĉ", "č")  # line feed, tab and carriage return in byte-level BPE


def continuing_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Ids of tokens that continue the word of the token before them, in order.

    Of WordPiece those with its prefix (``##``); of byte-level BPE and Unigram those without a leading space, so that a
    comma belongs to the word it follows. Empty for tokenizers whose ids do not tell, such as one of characters.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_ids)
    vocab = {token: i for token, i in tokenizer.get_vocab().items() if i not in special}
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return tuple(sorted(i for token, i in vocab.items() if token.startswith(prefix) and token != prefix))
    if model["type"] == "Unigram" or (model["type"] == "BPE" and model["merges"]):
        marks = [mark for mark in (_SPACE_OF_BYTES, _SPACE_OF_PIECES) if any(t.startswith(mark) for t in vocab)]
        begins = (*marks, *_OTHER_BLANKS)
        return tuple(sorted(i for token, i in vocab.items() if not token.startswith(begins))) if marks else ()
    return ()
