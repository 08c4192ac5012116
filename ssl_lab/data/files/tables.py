"""Faults of tables that a reader accepts all the same."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.files.csv_files import first_line
from ssl_lab.data.hugging_face import datasets

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_SURPLUS = "__index_level_0__"  # what pandas makes of the first field where rows have more fields than the header


def check_column(rows: datasets.Dataset, column: str, *, setting: str) -> None:
    """Raise ValueError, naming the columns there are, if ``column`` is not one of them."""
    if column not in rows.column_names:
        raise ValueError(
            f"{setting}={column!r} is not a column of this data set, which has {rows.column_names}. "
            f"Set data.{setting} to one of them."
        )


def check_text_column(
    splits: Mapping[str, datasets.Dataset], column: str, *, setting: str, lists: bool = False
) -> None:
    """Raise ValueError if a split has no ``column``, or it holds no text, or where ``lists`` no lists of texts either."""
    for split, rows in splits.items():
        if column not in rows.column_names and column in splits.get("train", rows).column_names:
            raise ValueError(
                f"{setting}={column!r} is a column of train, but {split} has {rows.column_names}. Name the columns of all "
                "files alike."
            )
        check_column(rows, column, setting=setting)
        feature = rows.features[column]
        inner = feature.feature if lists and isinstance(feature, datasets.List) else feature
        if getattr(inner, "dtype", None) not in ("string", "large_string", "null"):
            raise ValueError(
                f"{setting}={column!r} holds {feature}, but a text is one string a row. Set data.{setting} to one of "
                f"{rows.column_names}."
            )


def as_numbers(values: Sequence[Any], *, column: str) -> NDArray[np.float32]:
    """The numbers of a score column, NaN where a cell is blank.

    Raises:
        ValueError: If a cell holds anything else.
    """
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            numbers[row] = float(value if not isinstance(value, str) or "_" not in value else "")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"score_column={column!r} holds {value!r}, but a score is a number. Set data.score_column."
            ) from error
        if not abs(numbers[row]) <= np.finfo(np.float32).max:
            raise ValueError(
                f"score_column={column!r} holds {value!r} in row {row}. Leave the cell blank, or correct it."
            )
    return numbers.astype(np.float32)


def csv_options(kinds: set[str], files: Sequence[Path]) -> dict[str, Any]:
    """Return pandas' options for csv and tsv: no word means "missing", and tsv has quotes only if its header has."""
    options: dict[str, Any] = {"keep_default_na": False}  # the word "null" is a word
    if kinds == {".tsv"}:
        quoted = all(cell[:1] == cell[-1:] == '"' for file in files for cell in first_line(file).split("\t"))
        options |= {"sep": "\t", "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
    return options


def check_csv(splits: Mapping[str, datasets.Dataset], path: object) -> None:
    """Refuse csv files whose fields are not where the header says; warn of a header that reads like a sample.

    Raises:
        ValueError: If rows have more fields than the header, or all columns are one.
    """
    for split, rows in splits.items():
        names = rows.column_names
        found = next((sign for sign in _SEPARATORS if any(sign in name for name in names)), None)
        if found is not None:
            raise ValueError(
                f"Cannot read {path} as comma-separated: the header of {split} is {_short(', '.join(names))!r}, which has "
                f"{_SEPARATORS[found]}. Set 'data.options={{sep: \"{found}\"}}'."
            )
        if _SURPLUS in names:
            raise ValueError(
                f"Cannot read {path}: rows of {split} have more fields than the header {names[:-1]}. Put texts that hold "
                "the separator in double quotes, or name all fields in the header."
            )
    first = [name for name in splits["train"].column_names if len(name) > 40 or name.count(" ") > 3]
    if first:
        warnings.warn(
            f"The first line of {path} is read as the names of the columns: {_short(first[0])!r}. If it is a sample, set "
            "'data.options={names: [text, label], header: null}' with the names of your columns.",
            stacklevel=3,
        )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
