"""What tells the content of data from other content of the same size."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lab.data.loader import LazyColumn

_ROWS_AT_ONCE = 4096
_WHOLE_BYTES = 2**30  # a larger column is known by a part of its rows
_PART_BYTES = 2**26


def content_digest(column: Tensor | np.ndarray[Any, Any] | LazyColumn) -> str:
    """Digest of type, shape and rows of a column; of one larger than 1 GiB, of 64 MiB of evenly spaced rows."""
    num_rows, row_bytes = len(column), column.nbytes // max(1, len(column))
    digest = hashlib.sha256(f"{column.dtype} {tuple(column.shape)}".encode())
    rows = np.arange(num_rows)
    if column.nbytes > _WHOLE_BYTES:
        rows = np.linspace(0, num_rows - 1, min(num_rows, max(1, _PART_BYTES // row_bytes))).astype(np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        chosen = rows[start : start + _ROWS_AT_ONCE]
        if isinstance(column, Tensor):
            part = column[torch.from_numpy(chosen).to(column.device)].cpu().reshape(-1).view(torch.uint8).numpy()
        else:
            part = np.ascontiguousarray(column[chosen])
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """How the splits of two fingerprints differ, in words; empty if they do not."""
    found = []
    for split in {**before, **now}:
        old, new = before.get(split), now.get(split)
        if old != new:
            counts = [f"{fact.split()[0]} samples" if fact else "none" for fact in (old, new)]
            same = counts[0] == counts[1]
            found.append(f"{split}: {counts[0]} of other content" if same else f"{split}: {counts[0]}, now {counts[1]}")
    return "; ".join(found)
