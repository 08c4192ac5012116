"""Columns of a split: in memory, in memory maps, of rows of different size, or made when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

SIZE = "_size"
"""Ending of the column of a batch that tells how large each row of another column is without its padding."""

_ROWS_AT_ONCE = 4096
_MOST_THREADS = 8


@dataclass(frozen=True)
class LazyColumn:
    """A column whose rows are put together when they are asked for.

    Attributes:
        read: Rows of the given numbers.
        shape: Shape of the whole column.
        dtype: Its type.
    """

    read: Callable[[NDArray[Any]], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, index: NDArray[Any]) -> NDArray[Any]:
        """The rows of the given numbers."""
        return self.read(index)

    @property
    def nbytes(self) -> int:
        """Size of the whole column."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def whole(self) -> NDArray[Any]:
        """All rows."""
        out = np.empty(self.shape, dtype=self.dtype)
        for start in range(0, len(self), _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(self)))
            out[rows] = self.read(rows)
        return out


class Ragged:
    """A column whose rows differ in length: boxes (K, 4) of an image, audio samples (T,), frames (T, C, H, W) of a clip.

    Row k is ``values[offsets[k]:offsets[k + 1]]``. A batch holds its rows padded with zeros to the longest of them,
    (B, longest, ...), and ``<name>_size``, int64 (B, 1), their lengths. Padded, because every column of a batch then has B
    rows, which views, gathering over ranks and the parts of a batch rely on; lengths, because a zero may be a value.

    Args:
        values: All rows one after another, (V, ...); a NumPy array may be a memory map.
        offsets: Where each row begins and the last one ends, N + 1 whole numbers of 0 to V that do not decrease.

    Raises:
        ValueError: If the offsets do not cut the values.
    """

    def __init__(self, values: Tensor | NDArray[Any], offsets: Tensor | NDArray[Any] | Sequence[int]) -> None:
        found = np.asarray(offsets)
        if found.ndim != 1 or len(found) == 0 or found.dtype.kind not in "iu":
            raise ValueError(
                f"Cannot cut values at offsets {found.dtype} {found.shape}. Give N + 1 whole numbers for N rows."
            )
        found = found.astype(np.int64)
        if found[0] < 0 or found[-1] > len(values) or (np.diff(found) < 0).any():
            raise ValueError(
                f"Cannot cut {len(values)} values at offsets {found[0]} to {found[-1]}. Give offsets of 0 to {len(values)} "
                "that do not decrease."
            )
        self.values = values
        self.offsets = found

    @classmethod
    def from_rows(cls, rows: Iterable[NDArray[Any]]) -> Ragged:
        """A column of the given rows, at least one, which differ in their first axis alone."""
        rows = list(rows)
        return cls(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the column, None where rows differ."""
        return (len(self), None, *self.values.shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.values.dtype

    @property
    def whole_values(self) -> Tensor | NDArray[Any]:
        """The values from the begin of the first row to the end of the last."""
        return self.values[int(self.offsets[0]) : int(self.offsets[-1])]

    @property
    def nbytes(self) -> int:
        """Size of the values of all rows."""
        return int(self.whole_values.nbytes)

    def __getitem__(self, index: NDArray[Any]) -> Tensor:
        """The rows of the given numbers, padded."""
        return self.read(index)[0]

    def read(self, index: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """The rows of the given numbers, at least one, padded with zeros, and their lengths (B, 1)."""
        starts = self.offsets[:-1][index]
        lengths = self.offsets[1:][index] - starts
        parts = [slice(start, start + length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
        values = self.values
        if isinstance(values, Tensor):
            padded = pad_sequence([values[part] for part in parts], batch_first=True)
        else:
            padded = torch.from_numpy(_padded([values[part] for part in parts]))
        return padded, torch.from_numpy(lengths).unsqueeze(1)

    def take(self, index: NDArray[Any]) -> Ragged:
        """A column of the rows of the given numbers, as a split needs them; their values are copied."""
        starts = self.offsets[:-1][index]
        lengths = self.offsets[1:][index] - starts
        offsets = np.cumsum([0, *lengths.tolist()])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths)
        return Ragged(self.values[places], offsets)

    def to(self, device: torch.device) -> Ragged:
        """The same rows with their values on a device."""
        return Ragged(as_tensor(self.whole_values).to(device), self.offsets - self.offsets[0])


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A column of files that are decoded when their batch is read, in threads, some batches ahead of the training step.

    Threads, as readers of images, audio and video release Python's lock, and nothing has to be pickled. Rows come in the
    order that is asked for whatever thread is first. A batch holds the rows; where ``row_shape`` leaves sizes open, padded
    with zeros to the largest of the batch, and ``<name>_size``, int64 (B, F), each row's sizes of the F open axes.

    Attributes:
        files: A file for each row; one file may be several rows.
        decode: The array of a file, the same whenever it is called. Random crops are the views' business.
        row_shape: Shape of a row, None for sizes that differ: (3, None, None) for images of their own size.
        dtype: Type of the rows.
        num_threads: Files that are decoded at a time.
    """

    files: Sequence[str | Path]
    decode: Callable[[Path], NDArray[Any] | None] = field(repr=False)
    row_shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    num_threads: int = min(_MOST_THREADS, os.cpu_count() or 1)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.files)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the column, None where rows differ."""
        return (len(self), *self.row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it occupies before any file is read: none; it is never kept on a device."""
        return 0

    def __getitem__(self, index: NDArray[Any]) -> Tensor:
        """The rows of the given numbers, padded where sizes differ."""
        return self.read(index)[0]

    def read(self, index: NDArray[Any]) -> tuple[Tensor, Tensor | None]:
        """The rows of the given numbers, at least one, padded with zeros, and their sizes (B, F) where some are open.

        Raises:
            ValueError: If a file cannot be decoded, or to an array of another shape or type; names the first one.
        """
        with ThreadPoolExecutor(min(self.num_threads, len(index))) as pool:
            rows = list(pool.map(self._row, index.tolist()))
        free = [axis for axis, size in enumerate(self.row_shape) if size is None]
        sizes = torch.tensor([[row.shape[axis] for axis in free] for row in rows]) if free else None
        return torch.from_numpy(_padded(rows)), sizes

    def _row(self, number: int) -> NDArray[Any]:
        file = Path(self.files[number])
        try:
            try:
                row = self.decode(file)
            except SystemError:  # Python before 3.11.8, if two threads parse a literal at once, as np.load does
                row = self.decode(file)
        except Exception as error:
            raise ValueError(
                f"Cannot decode {file}: {type(error).__name__}: {error}. Replace the file, or leave it out of the data."
            ) from error
        if row is None:
            raise ValueError(f"Cannot decode {file}: it cannot be read. Replace the file, or leave it out of the data.")
        fits = len(row.shape) == len(self.row_shape) and all(
            size in (None, found) for size, found in zip(self.row_shape, row.shape, strict=True)
        )
        if not fits or row.dtype != self.dtype:
            raise ValueError(
                f"Cannot use {file}: it is decoded to {row.dtype} {row.shape}, but rows are {self.dtype} "
                f"{self.row_shape} (None: any size). Replace the file, or correct what decodes it."
            )
        return row


Column: TypeAlias = "Tensor | NDArray[Any] | LazyColumn | Ragged | Decoded"

Columns: TypeAlias = Mapping[str, Column]
"""Columns of equally many rows by name; a numpy array may be a memory map."""


def take(column: Column, rows: NDArray[Any]) -> Column:
    """A column of the rows of the given numbers; those of a memory map or a lazy column are read when they are asked for."""
    if isinstance(column, Tensor):
        return column[torch.from_numpy(rows).to(column.device)]
    if isinstance(column, Ragged):
        return column.take(rows)
    if isinstance(column, Decoded):
        return replace(column, files=[column.files[row] for row in rows.tolist()])
    if isinstance(column, LazyColumn | np.memmap):
        return LazyColumn(lambda index: column[rows[index]], (len(rows), *column.shape[1:]), column.dtype)
    return column[rows]


def as_tensor(values: Tensor | NDArray[Any]) -> Tensor:
    """The values as a tensor, copied if they are read-only, as those of a memory map are, which torch does not support."""
    if isinstance(values, Tensor) or values.flags.writeable:
        return torch.as_tensor(values)
    return torch.from_numpy(np.array(values))


def _padded(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of as many axes each in one, (B, largest, ...), zero where they end."""
    shapes = [row.shape for row in rows]
    out = np.zeros((len(rows), *np.max(shapes, axis=0).astype(int)), dtype=rows[0].dtype)
    for k, row in enumerate(rows):
        inside: tuple[Any, ...] = (k, *map(slice, row.shape))
        out[inside] = row
    return out
