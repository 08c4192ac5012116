"""Texts that a user gives in files: a text a line, or a row of a table each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lab.data.base import Sample
from ssl_lab.data.files.inventory import suffix
from ssl_lab.data.files.text_files import read_lines

if TYPE_CHECKING:
    import datasets

_PLAIN = ".txt"
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
TEXT_ENDINGS = (_PLAIN, *_TABLES, *(f"{ending}.gz" for ending in (_PLAIN, *_TABLES) if ending != ".parquet"))
"""Of files of texts, gzipped or not."""


def is_filled(text: object) -> bool:
    """Return whether a field holds a text, or words, that are not blank."""
    return any(map(is_filled, text)) if isinstance(text, list | tuple) else isinstance(text, str) and bool(text.strip())


def read_samples(file: Path, fields: Mapping[str, str]) -> list[Sample]:
    """The texts of a file: of plain text one a line, of a table one a row; a cell without text is empty.

    Args:
        file: A file with one of :data:`TEXT_ENDINGS`.
        fields: The column of each field. Where there is one field, and the table lacks its column, the only column of strings
            is taken.

    Raises:
        ValueError: If a column is missing or holds no texts, or the file cannot be read.
    """
    if suffix(file.name) == _PLAIN:
        if len(fields) > 1:
            raise ValueError(
                f"Cannot read {file}: plain text holds a text a line, and a sample is {' and '.join(fields)}. Give a csv, "
                f"json or parquet file with the columns {', '.join(fields.values())}."
            )
        return [{name: line for name in fields} for line in read_lines(file)]
    from ssl_lab.data.hub import load_splits

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The first line of")  # a header that reads like a sample: seen below
        rows = load_splits({"train": [str(file)]}, words=tuple(fields.values()), tell=False)["train"]
    columns = {name: _column(rows, name, column, file, alone=len(fields) == 1) for name, column in fields.items()}
    texts = {name: ["" if cell is None else cell for cell in rows[column]] for name, column in columns.items()}
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _column(rows: datasets.Dataset, name: str, column: str, file: Path, *, alone: bool) -> str:
    """The column of a field, which holds strings, or lists of them."""
    kinds = {each: getattr(kind, "dtype", None) for each, kind in rows.features.items()}
    strings = [each for each, kind in kinds.items() if kind in ("string", "large_string")]
    if column not in kinds and alone and len(strings) == 1:
        if len(strings[0]) > 40 or strings[0].count(" ") > 3:
            raise ValueError(
                f"Cannot read {file}: its first line, {strings[0][:40]!r}, reads like a text, but is to name columns. Add "
                f"a line with names at its beginning, such as {column}."
            )
        return strings[0]
    if column not in kinds:
        raise ValueError(
            f"Cannot find the {name} of each row of {file}: it has no column {column!r}, but {', '.join(kinds)}. Name it: "
            f"columns={{{name}: {strings[0] if strings else 'NAME'}}}."
        )
    feature = rows.features[column]
    inner = getattr(feature, "feature", feature)  # of a list
    if getattr(inner, "dtype", None) not in ("string", "large_string", "null"):
        raise ValueError(
            f"Cannot read the column {column!r} of {file} as the {name}: it holds {feature}. Name a column of texts: "
            f"columns={{{name}: {strings[0] if strings else 'NAME'}}}."
        )
    return column
