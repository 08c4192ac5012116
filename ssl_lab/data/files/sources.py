"""What a path of data names: files by split, or a data set of the hub."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ssl_lab.data.files.inventory import Source, suffix, take_inventory, title_of

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".txt": "text",
}
"""Kinds of files of texts and tables, and their readers."""


def is_local(path: str) -> bool:
    """Return whether a path means files rather than a name on the hub."""
    looks_local = path.startswith((".", "~", os.sep)) or suffix(path) in FORMATS
    return looks_local or Path(path).exists()


def files_by_split(path: Source, kinds: Collection[str] = tuple(FORMATS)) -> dict[str, list[Path]]:
    """Data files by split, from a file, a folder, or several for each split; prints the files left out.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If no file of these kinds is there, or the layout is unclear.
    """
    inventory = take_inventory(path, kinds)
    inventory.tell(title_of(path))
    return inventory.paths
