"""Packing of pieces of documents into rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_fit_decreasing(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Put pieces into few rows: longest first, each into the fullest row that has room for it, else into a new one.

    Best-fit decreasing needs at most 11/9 of the fewest possible rows, and one more. Pieces of one length are placed
    together, and rows that are filled alike are kept as one range, so the time grows with the number of different
    lengths and not of pieces: this is the histogram packing of Krell et al. without their limit on pieces a row.

    Args:
        lengths: Tokens of each piece, shape (N,), from 1 to ``capacity``.
        capacity: Tokens of a row.

    Returns:
        The row of each piece, shape (N,); rows are numbered 0, 1, ... by their first piece.

    Raises:
        ValueError: If a length is not in 1 to ``capacity``.

    References:
        Krell et al., Efficient Sequence Packing without Cross-contamination (2021). arXiv:2107.02027
        Johnson, Near-Optimal Bin Packing Algorithms (1973), for the bound.
    """
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.int64)
    if lengths.min() < 1 or lengths.max() > capacity:
        raise ValueError(
            f"Pieces of {lengths.min()} to {lengths.max()} tokens do not fit into rows of {capacity}. Cut them first."
        )
    by_length = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    row_of = np.empty(len(lengths), dtype=np.int64)
    free = _FreeRows()
    num_placed = num_rows = 0
    for length in range(capacity, 0, -1):
        left = int(counts[length])
        while left:
            room, first, last = free.take(length) or (capacity, num_rows, num_rows - (-left // (capacity // length)))
            num_rows = max(num_rows, last)
            a_row = room // length  # a row that got one piece is then the fullest with room for the next
            num_full = min(last - first, left // a_row)
            num_over = left - num_full * a_row if first + num_full < last else 0
            placed = np.repeat(np.arange(first, first + num_full), a_row)
            placed = np.append(placed, np.full(num_over, first + num_full, dtype=np.int64))
            row_of[by_length[num_placed : num_placed + len(placed)]] = placed
            num_placed, left = num_placed + len(placed), left - len(placed)
            used = first + num_full + (num_over > 0)
            free.add(room - a_row * length, first, first + num_full)
            free.add(room - num_over * length, first + num_full, used)
            free.add(room, used, last)
    first_piece = np.full(num_rows, len(lengths))
    np.minimum.at(first_piece, row_of, np.arange(len(lengths)))
    number = np.empty(num_rows, dtype=np.int64)
    number[np.argsort(first_piece, kind="stable")] = np.arange(num_rows)
    return number[row_of]


class _FreeRows:
    """Ranges of rows by the room they have left."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self._rooms = 0  # bit r is set if some row has room r

    def add(self, room: int, first: int, last: int) -> None:
        """Rows ``first`` to ``last`` (exclusive) have this much room."""
        if first < last and room > 0:
            self._ranges.setdefault(room, []).append((first, last))
            self._rooms |= 1 << room

    def take(self, length: int) -> tuple[int, int, int] | None:
        """Room, first and last of a range with the least room that suffices; None if there is none."""
        fitting = self._rooms >> length
        if not fitting:
            return None
        room = length + (fitting & -fitting).bit_length() - 1
        ranges = self._ranges[room]
        first, last = ranges.pop()
        if not ranges:
            self._rooms &= ~(1 << room)
        return room, first, last
