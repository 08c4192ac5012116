"""Fingerprint of the content of data, which distinguishes it from other content of the same size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lab.data.columns import Column, Decoded, Ragged

_ROWS_AT_ONCE = 4096
_WHOLE_BYTES = 2**30  # a larger column is known by a part of its rows
_PART_BYTES = 2**26
_MOST_FILES = 2**16
_NUM_DECODED = 8


def content_digest(column: Column) -> str:
    """Digest of type, shape and rows of a column; of one larger than 1 GiB, of 64 MiB of evenly spaced rows.

    Of files that are decoded late it is that of their bytes, of 65,536 files at most, whatever their names, and of the
    shapes of a few rows: other settings of what decodes them are noticed only if they change these.

    Raises:
        ValueError: If a file cannot be read.
    """
    if isinstance(column, Ragged):
        parts = [content_digest(np.diff(column.offsets)), content_digest(column.whole_values)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    if isinstance(column, Decoded):
        return _digest_of_files(column)
    num_rows, row_bytes = len(column), column.nbytes // max(1, len(column))
    digest = hashlib.sha256(f"{column.dtype} {tuple(column.shape)}".encode())
    rows = np.arange(num_rows)
    if column.nbytes > _WHOLE_BYTES:
        rows = _spaced(num_rows, max(1, _PART_BYTES // row_bytes))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        chosen = rows[start : start + _ROWS_AT_ONCE]
        if isinstance(column, Tensor):
            part = column[torch.from_numpy(chosen).to(column.device)].cpu().reshape(-1).view(torch.uint8).numpy()
        else:
            part = np.ascontiguousarray(column[chosen])
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def _digest_of_files(column: Decoded) -> str:
    files = [Path(column.files[row]) for row in _spaced(len(column), _MOST_FILES)]
    _, shapes = column.read(_spaced(len(column), _NUM_DECODED)) if files else (None, None)
    digest = hashlib.sha256(f"{column.dtype} {column.shape} {None if shapes is None else shapes.tolist()}".encode())
    try:
        sizes = [file.stat().st_size for file in files]
        digest.update(str(sizes).encode())
        num_read = len(files)
        if sum(sizes) > _WHOLE_BYTES:
            num_read = max(1, _PART_BYTES * len(files) // sum(sizes))
        for row in _spaced(len(files), num_read):
            with open(files[row], "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ValueError(
            f"Cannot read {error.filename}: {error.strerror}. Restore the file, or leave it out."
        ) from error
    return digest.hexdigest()[:16]


def _spaced(number: int, at_most: int) -> np.ndarray[Any, Any]:
    """Evenly spaced rows of so many."""
    return np.linspace(0, number - 1, min(number, at_most)).astype(np.int64)


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Describe how the splits of two fingerprints differ, in words; empty if they do not."""
    found = []
    for split in {**before, **now}:
        old, new = before.get(split), now.get(split)
        if old != new:
            counts = [f"{fact.split()[0]} samples" if fact else "none" for fact in (old, new)]
            same = counts[0] == counts[1]
            found.append(f"{split}: {counts[0]} of other content" if same else f"{split}: {counts[0]}, now {counts[1]}")
    return "; ".join(found)
