"""Where predictions and features are written: looked at before anything slow is imported."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from ssl_lab.extras import needed_to, require
from ssl_lab.outputs import marked

FEATURES = ("features", "features.0")
FEATURE_ENDINGS = (".parquet", ".npy", ".csv")
_OF_FEATURES = ("split", "index", "label", "class")
NEIGHBOURS_TABLE, NEIGHBOURS_PAGE = "neighbours.csv", "index.html"
_OF_NEIGHBOURS = ("query", "rank", "similarity", "name")
ENDINGS = (".csv", ".jsonl", ".parquet")
PLACES = ("path", "row", "id")
"""Columns that say where a sample came from."""
_GIVEN = (*PLACES, "text", "second_text", "question")
_PREDICTED = ("prediction", "mask", "words", "tags", "answer", "similarity", "translation")
_BESIDE = ("probability", "score", "probabilities", "shares")
MARK = ("Software", "ssl_lab")
"""What the pictures that are written say of their origin."""


def check_ending(out: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Refuse a name whose ending says no kind of table.

    Raises:
        ValueError: Naming the endings that do.
        MissingPackageError: If the package that writes parquet files is missing.
    """
    if out.suffix not in endings:
        raise ValueError(
            f"Cannot write out={out}: the ending says what is written. Give a name that ends in {_or(endings)}."
        )
    if out.suffix == ".parquet":
        require(f"write out={out}", "pyarrow")


def holds_predictions(path: Path) -> bool:
    """Whether ``ssl-lab predict`` wrote a file: its columns are those of predictions, the first a place, and no others.

    Tables to learn from, such as ``text,translation``, name no place; predictions without one are not replaced either.
    """
    names = columns_of(path)
    if not names or names[0] not in PLACES:
        return False
    tops = {name.partition(".")[0] for name in names}
    return bool(tops & set(_PREDICTED)) and tops <= {*_GIVEN, *_PREDICTED, *_BESIDE}


def holds_features(path: Path) -> bool:
    """Whether ``ssl-lab embed`` wrote a file; of npy its rows beside it say so."""
    if path.suffix == ".npy":
        names = columns_of(rows_beside(path))
        return bool(names) and set(names) <= {*_GIVEN, *_OF_FEATURES} and _is_matrix(path)
    names = columns_of(path)
    tops = {name.partition(".")[0] for name in names}
    return bool(set(names) & set(FEATURES)) and tops <= {*_GIVEN, *_OF_FEATURES, "features"}


def _is_matrix(path: Path) -> bool:
    """Whether a file is an array of features (N, D), and not one of images."""
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind == "f"


def holds_neighbours(path: Path) -> bool:
    """Whether ``ssl-lab neighbours`` wrote a table."""
    return columns_of(path)[: len(_OF_NEIGHBOURS)] == list(_OF_NEIGHBOURS)


is_page_of_neighbours = marked(b".similar { display", begin=b"<!doctype html>")
"""Whether ``ssl-lab neighbours`` wrote a page."""


def rows_beside(out: Path) -> Path:
    """Where the rows of features that are an array alone are named."""
    return out.with_name(f"{out.name.removesuffix('.npy')}.rows.csv")


def columns_of(path: Path) -> list[str]:
    """Names of the columns of a csv, jsonl or parquet file; empty if it is not such a table."""
    try:
        if path.suffix == ".parquet":
            with needed_to(f"read {path}"):
                import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline(1 << 20)
        found = json.loads(line) if path.suffix == ".jsonl" else next(csv.reader([line]), [])
    except (OSError, ValueError, csv.Error):  # pyarrow's errors are of these classes
        return []
    return list(found) if isinstance(found, dict | list) else []


def masks_folder(out: Path) -> Path:
    """Where the masks of a table lie."""
    return out.with_name(f"{out.stem}_masks")


is_mask_of_ours = marked("\0".join(MARK).encode(), begin=b"\x89PNG")
"""Whether a file is a mask that :func:`~ssl_lab.predict.tables.write_masks` wrote."""


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
