"""Find files with equal content in different splits: test samples that were also trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.files.layout import shown
from ssl_lab.data.store import remembered

_PROBE_BYTES = 4096
_BYTES_TO_OPEN = 16 << 10  # what opening a file costs, in bytes read
_PAIRS = (("val", "train"), ("val", PRETRAIN), ("test", "train"), ("test", PRETRAIN), ("test", "val"))


class Copy(NamedTuple):
    """A file that may have copies.

    Attributes:
        path: Where it is.
        name: What messages call it.
        size: Its size in bytes.
    """

    path: str
    name: str
    size: int


def copies(files: Mapping[str, Sequence[Copy]], facts: Any) -> list[str]:
    """Describe how many files of a split have the content of files of another.

    Sizes are compared first, then 4 KiB from the middle, then all bytes. Copies within ``train`` count where ``val`` or
    ``test`` is cut from it. Copies in ``train`` and ``pretrain`` do not: both are trained on.

    Args:
        files: The files by split.
        facts: Plain data that change when a file does.
    """
    flat = [(split, file) for split, each in files.items() for file in each]
    cut = not {"val", "test"} <= set(files)
    cost = sum(max(file.size, _BYTES_TO_OPEN) for _, file in flat)
    found: list[str] = remembered("copies-1", facts, lambda: _find(flat, cut=cut), num_bytes=cost)
    return found


def _find(flat: Sequence[tuple[str, Copy]], *, cut: bool) -> list[str]:
    groups = [list(flat)]
    for key in (lambda file: file.size, _middle, _whole):
        groups = [part for group in groups for part in _parts(group, key) if _matters(part, cut=cut)]
    notes = []
    for split, other in (*_PAIRS, ("train", "train")):
        pairs = [
            (own[0], others[-1], len(own) - (split == other))
            for group in groups
            if (own := [file for name, file in group if name == split])
            and (others := [file for name, file in group if name == other])
            and (split != other or (cut and len(own) > 1))
        ]
        if number := sum(pair[2] for pair in pairs):
            one, same, _ = pairs[0]
            notes.append(
                f"{number:,} file{'s' * (number > 1)} of {split} {'are' if number > 1 else 'is'} byte-identical to "
                f"{'other ' if split == other else ''}files of {other} ({shown(one.name)} to {shown(same.name)})"
            )
    return notes


def _matters(group: Sequence[tuple[str, Copy]], *, cut: bool) -> bool:
    splits = [split for split, _ in group]
    return not set(splits) <= {"train", PRETRAIN} and len(set(splits)) > 1 or cut and splits.count("train") > 1


def _parts(group: Iterable[tuple[str, Copy]], key: Callable[[Copy], Hashable]) -> Iterable[list[tuple[str, Copy]]]:
    parts: dict[Hashable, list[tuple[str, Copy]]] = {}
    for split, file in group:
        parts.setdefault(key(file), []).append((split, file))
    return parts.values()


def _middle(file: Copy) -> Hashable:
    try:
        with open(file.path, "rb") as content:
            content.seek(max(0, (file.size - _PROBE_BYTES) // 2))
            return hashlib.blake2b(content.read(_PROBE_BYTES)).digest()
    except OSError:
        return file.path  # whoever decodes it says so


def _whole(file: Copy) -> Hashable:
    if file.size <= _PROBE_BYTES:
        return b""  # looked at already
    try:
        with open(file.path, "rb") as content:
            return hashlib.file_digest(content, "blake2b").digest()
    except OSError:
        return file.path
