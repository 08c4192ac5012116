"""What can be wrong with a table that a reader accepts all the same."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_STRINGS = ("string", "large_string", "string_view")
_AGAIN = re.compile(r"(.+)\.\d+")  # what pandas calls the second column of a name


def check_column(rows: datasets.Dataset, column: str, *, setting: str, split: str | None = None) -> None:
    """Raise ValueError, naming the columns there are, if ``column`` is not one of them."""
    if column in rows.column_names:
        return
    split = None if split == "train" else split
    place = "this data set" if split is None else f"the {split} split"
    remedy = f"Set data.{setting} to one of them."
    nested = [name for name, feature in rows.features.items() if _holds_rows(feature)]
    if rows.builder_name == "text":
        remedy = "It is plain text: give a table of that column, a file called .csv, .tsv, .jsonl or .parquet."
    elif split is not None:
        remedy = "Give all splits the same columns, or leave that one out."
    elif nested:
        remedy += f" If the rows are in {nested[0]!r}, set 'data.options={{field: {nested[0]}}}'."
    raise ValueError(f"{setting}={column!r} is no column of {place}, which has {rows.column_names}. {remedy}")


def check_texts(
    splits: Mapping[str, datasets.Dataset], column: str, *, setting: str, depths: Collection[int] = (0,)
) -> None:
    """Raise ValueError unless a column of each split holds texts.

    Args:
        splits: Rows by split.
        column: The column.
        setting: The setting that names it.
        depths: 0 for a text a row, 1 for a list of them.
    """
    check_column(splits["train"], column, setting=setting)
    for split, rows in splits.items():
        check_column(rows, column, setting=setting, split=split)
        feature, depth = rows.features[column], 0
        while isinstance(feature, (datasets.List, datasets.LargeList)):
            feature, depth = feature.feature, depth + 1
        if depth not in depths or not is_text(feature):
            wanted = "a list of texts" if 0 not in depths else "a text or a list of them" if 1 in depths else "a text"
            remedy = "Texts that are all numbers are read as numbers: keep them as strings in jsonl or parquet."
            raise ValueError(
                f"{setting}={column!r} holds {rows.features[column]} in {split}, but needs {wanted} a row. Set "
                f"data.{setting}. {remedy if is_number(feature) else ''}".strip()
            )


def is_text(feature: Any) -> bool:
    """Whether cells of this kind are strings, or all blank."""
    return isinstance(feature, datasets.Value) and feature.dtype in (*_STRINGS, "null")


def is_number(feature: Any) -> bool:
    """Whether cells of this kind are numbers."""
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "float", "decimal"))


def _holds_rows(feature: Any) -> bool:
    return isinstance(feature, (datasets.List, datasets.LargeList)) and isinstance(feature.feature, dict)


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
            numbers[row] = float(value)
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
    """How pandas should read csv and tsv files: no word means "missing", and tsv has quotes only if its header has."""
    # The word "null" is a word. A field more than the header has is a fault, not the name of a row.
    options: dict[str, Any] = {"keep_default_na": False, "index_col": False}
    if kinds == {".tsv"}:
        quoted = all(cell[:1] == cell[-1:] == '"' for file in files for cell in _first_line(file).split("\t"))
        options |= {"sep": "\t", "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
    return options


def check_separator(files: Sequence[Path], path: object) -> None:
    """Refuse csv files whose header is separated by something else.

    Raises:
        ValueError: Naming the sign.
    """
    for file in files:
        names = next(csv.reader([_first_line(file)]), [])
        found = next((sign for sign in _SEPARATORS if any(sign in name for name in names)), None)
        if found is not None:
            sign = "\\t" if found == "\t" else found
            raise ValueError(
                f"Cannot read {path} as comma-separated: the header of {file.name} is {_short(', '.join(names))!r}, "
                f"which has {_SEPARATORS[found]}. Set 'data.options={{sep: \"{sign}\"}}'."
            )


def check_csv(splits: Mapping[str, datasets.Dataset], path: object) -> None:
    """Warn of names of columns that come twice, and of a header that may be a sample."""
    for split, rows in splits.items():
        names = rows.column_names
        twice = sorted({found[1] for name in names if (found := _AGAIN.fullmatch(name)) and found[1] in names})
        if twice:
            warnings.warn(
                f"The header of {split} of {path} has {twice[0]!r} twice. The first is read as {twice[0]!r}, the next as "
                f"{twice[0] + '.1'!r}.",
                stacklevel=3,
            )
    names = splits["train"].column_names
    first = [name for name in names if len(name) > 40 or name.count(" ") > 3]
    numbers = [name for name in names if _is_number(name)]
    counted = set(numbers) <= {str(k) for k in range(len(names))} and len(numbers) > 1  # by pandas
    if first or (numbers and not counted):
        example = ", ".join(["text", "label", *(f"column_{k}" for k in range(2, len(names)))][: len(names)])
        warnings.warn(
            f"The first line of {path} is read as the names of the columns: {_short((first or numbers)[0])!r}. If it is a "
            f"sample, set 'data.options={{names: [{example}], header: null}}' with a name for each of your {len(names)} "
            "columns.",
            stacklevel=3,
        )


def _first_line(file: Path) -> str:
    opened = gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig")
    with opened as lines:
        try:
            return next(lines, "").rstrip("\r\n")
        except UnicodeDecodeError:
            return ""  # whoever reads the whole file says so


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
