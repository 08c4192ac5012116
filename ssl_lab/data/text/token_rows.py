"""Rows of token ids, cut from documents that are stored one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.columns import LazyColumn
from ssl_lab.data.text.packing import best_fit_decreasing


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Special tokens around text.

    Attributes:
        before: Ids before each piece of a document.
        after: Ids after each piece.
        end: Id after the last piece of a document, or nothing.
        pad: Id of padding.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int

    @property
    def marks_padding(self) -> bool:
        """Return whether the padding id means nothing else."""
        return self.pad not in (*self.before, *self.after, *self.end)


def frame_of(tokenizer: PreTrainedTokenizerFast, framing: str) -> Frame:
    """Return the tokens that a tokenizer puts around text.

    Args:
        tokenizer: The tokenizer.
        framing: ``encoder``: its own class and separator tokens around each piece. ``causal``: its end-of-text token after
            each document.
    """
    pad = tokenizer.pad_token_id
    if framing == "causal":
        return Frame(end=(tokenizer.eos_token_id,), pad=pad)
    bare, framed = (tokenizer("a", add_special_tokens=framed)["input_ids"] for framed in (False, True))
    num_before = next(k for k in range(len(framed)) if framed[k : k + len(bare)] == bare)
    before, after = tuple(framed[:num_before]), tuple(framed[num_before + len(bare) :])
    if not before and not after and tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        before, after = (tokenizer.cls_token_id,), (tokenizer.sep_token_id,)  # trained for causal framing
    return Frame(before=before, after=after, pad=pad)


class TokenRows:
    """Rows of ``max_length`` tokens over stored documents; only those that are asked for are put together.

    A document is cut into pieces that fill a row with their special tokens, and a remainder. Without packing each piece is
    a row, in the order of the text. With packing, remainders share rows (:func:`best_fit_decreasing`), and rows are in
    the order of their first piece. No token is lost either way.

    Args:
        ids: Token ids without special tokens, documents one after the other; memory maps or arrays, each (T,).
        lengths: Tokens of each document in each of these arrays; their sum is T.
        frame: Special tokens.
        max_length: Tokens of a row, special tokens included.
        vocab_size: Number of ids, which decides the type of the rows.
        packing: Put several pieces into a row.
        truncate: Keep only the first piece of a document, with the end token if there is one.
    """

    def __init__(
        self,
        ids: Sequence[NDArray[Any]],
        lengths: Sequence[NDArray[Any]],
        *,
        frame: Frame,
        max_length: int,
        vocab_size: int,
        packing: bool = False,
        truncate: bool = False,
    ) -> None:
        self.ids = ids
        self.frame = frame
        self.max_length = max_length
        self.packing = packing
        self.dtype = np.int16 if vocab_size <= np.iinfo(np.int16).max else np.int32
        room = max_length - len(frame.before) - len(frame.after)
        num_tokens = np.concatenate([np.asarray(part, dtype=np.int64) for part in lengths])
        array = np.repeat(np.arange(len(lengths)), [len(part) for part in lengths])
        start = np.concatenate([np.cumsum(part, dtype=np.int64) - part for part in lengths])
        if truncate:
            num_tokens = np.minimum(num_tokens, room - len(frame.end))
        whole = num_tokens + len(frame.end)
        num_pieces = np.maximum(-(-whole // room), 1)
        document = np.repeat(np.arange(len(whole)), num_pieces)
        begin = _counting(num_pieces) * room
        # The end token is the last of its document: the pieces before it hold none.
        self._num_tokens = np.clip(num_tokens[document] - begin, 0, room)
        self._has_end = np.minimum(whole[document] - begin, room) > self._num_tokens
        self._array, self._start = array[document], start[document] + begin
        self._width = self._num_tokens + self._has_end + (max_length - room)
        self._order = np.arange(len(document))
        self._first = np.arange(len(document) + 1)
        if packing:
            row = best_fit_decreasing(self._width, max_length)
            self._order = np.argsort(row, kind="stable")
            self._first = np.searchsorted(row[self._order], np.arange(row.max(initial=-1) + 2))
        most = int(np.diff(self._first).max(initial=0))
        self._number_dtype = np.int8 if most <= np.iinfo(np.int8).max else np.int16

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._first) - 1

    @cached_property
    def padding_share(self) -> float:
        """Share of all tokens of the rows that are padding."""
        return 1.0 - float(self._width.sum()) / (len(self) * self.max_length)

    def columns(self) -> dict[str, LazyColumn]:
        """``input_ids``, and ``document_ids`` where they are needed to tell documents or padding apart."""
        shape = (len(self), self.max_length)
        columns = {"input_ids": LazyColumn(self.input_ids, shape, np.dtype(self.dtype))}
        if self.packing or not self.frame.marks_padding:
            columns["document_ids"] = LazyColumn(self.document_ids, shape, np.dtype(self._number_dtype))
        return columns

    def input_ids(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Padded ids of the given rows, shape (B, max_length)."""
        pieces, row, column = self._place(rows)
        out = np.full((len(rows), self.max_length), self.frame.pad, dtype=self.dtype)
        for j, token in enumerate(self.frame.before):
            out[row, column + j] = token
        column = column + len(self.frame.before)
        num_tokens = self._num_tokens[pieces]
        places = zip(row.tolist(), column.tolist(), num_tokens.tolist(), strict=True)
        sources = zip(self._array[pieces].tolist(), self._start[pieces].tolist(), strict=True)
        for (b, begin, num), (array, start) in zip(places, sources, strict=True):
            out[b, begin : begin + num] = self.ids[array][start : start + num]
        column = column + num_tokens
        ends = self._has_end[pieces]
        for token in self.frame.end:
            out[row[ends], column[ends]] = token
        for j, token in enumerate(self.frame.after):
            out[row, column + j] = token
        return out

    def document_ids(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Number of the document at each token of the given rows: 1, 2, ... within a row, 0 at padding."""
        pieces, row, column = self._place(rows)
        number = _counting(self._first[rows + 1] - self._first[rows]) + 1
        width = self._width[pieces]
        out = np.zeros((len(rows), self.max_length), dtype=self._number_dtype)
        out[np.repeat(row, width), np.repeat(column, width) + _counting(width)] = np.repeat(number, width)
        return out

    def _place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The pieces of rows, the row of each, and the column where it starts."""
        num = self._first[rows + 1] - self._first[rows]
        pieces = self._order[np.repeat(self._first[rows], num) + _counting(num)]
        row = np.repeat(np.arange(len(rows)), num)
        end = np.cumsum(self._width[pieces])
        begin = end - self._width[pieces]
        first = np.cumsum(num) - num
        return pieces, row, begin - np.repeat(begin[first], num)


def _counting(num: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... ``num[0] - 1``, 0, 1, ... ``num[1] - 1``, and so on."""
    ends = np.cumsum(num)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - num, num)
