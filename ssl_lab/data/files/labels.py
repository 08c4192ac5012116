"""Classes of the rows of a table."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.files.tables import check_column
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.splits import UNLABELLED

_WHOLE = re.compile(r"(0|-?[1-9]\d{0,999})(\.0+)?")  # Python reads no number of 4,300 digits
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?")


def encode_labels(
    splits: Mapping[str, datasets.Dataset], column: str | None
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Labels 0, 1, ... of every row, -1 where unknown, and the names of the classes.

    Classes of a column that does not name them are its sorted values in the train split. Text is taken as written, but where
    all of it are whole numbers (``10``, ``10.0``, not ``010``) they are read and sorted as such. Blank cells, None and NaN
    mean unknown, and so does -1 in a column of named classes (``datasets.ClassLabel``). In any other column -1 is a class,
    unless a split other than train holds nothing else: its labels are withheld.

    Raises:
        ValueError: If the column is missing, holds lists or real numbers, writes one number in two ways, has no class, or
            has a class that train lacks.
    """
    if column is None:
        return {split: np.full(len(rows), UNLABELLED) for split, rows in splits.items()}, ()
    check_column(splits["train"], column, setting="label_column")
    feature = splits["train"].features[column]
    if not isinstance(feature, (datasets.ClassLabel, datasets.Value)):
        raise ValueError(
            f"label_column={column!r} holds {feature}, but a label is one number or name a row. Choose another column, "
            "or null."
        )
    known: dict[str, list[Any]] = {
        split: [_known(value, column) for value in rows[column]] if column in rows.column_names else [None] * len(rows)
        for split, rows in splits.items()
    }
    if isinstance(feature, datasets.ClassLabel):
        labels = {split: np.array([-1 if v is None else v for v in vs], np.int64) for split, vs in known.items()}
        names = tuple(feature.names)
    else:
        labels, names = _number(known, column)
    for split, numbers in labels.items():
        missing = int((numbers == UNLABELLED).sum())
        if 0 < missing < len(numbers):
            warnings.warn(
                f"{missing} of {len(numbers)} rows of {split} have no label in {column!r}. Probes and fine-tuning leave "
                "them out.",
                stacklevel=2,
            )
    return labels, names


def _number(known: Mapping[str, list[Any]], column: str) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Numbers of the values of a column that does not name its classes."""
    known = _whole_numbers(known, column)
    withheld = [
        split
        for split, values in known.items()
        for unknown in (-1, "-1")
        if set(values) == {unknown} and unknown not in known["train"]
    ]
    known = {split: [None] * len(values) if split in withheld else values for split, values in known.items()}
    if any(isinstance(value, float) and not value.is_integer() for values in known.values() for value in values):
        raise ValueError(
            f"label_column={column!r} holds real numbers, but a label is a class. Choose another column, or null."
        )
    classes = sorted({value for value in known["train"] if value is not None})
    if not classes:
        raise ValueError(
            f"label_column={column!r} is blank in all {len(known['train'])} rows of train. Choose another column, or null."
        )
    looks = {value: _look(value) for value in classes if isinstance(value, str)}
    num_like = Counter(looks.values())
    if alike := [value for value, look in looks.items() if num_like[look] > 1]:
        warnings.warn(
            f"The classes {alike[:6]} in {column!r} differ in capitals, blanks or the spelling of accents alone; each is a "
            "class of its own.",
            stacklevel=3,
        )
    if -1 in classes and len(classes) > 2 and classes[1:] == list(range(len(classes) - 1)):
        warnings.warn(
            f"{known['train'].count(-1)} of {len(known['train'])} rows of train have -1 in {column!r}, which is read as a "
            "class of its own. If it means that the label is unknown, leave these cells blank.",
            stacklevel=3,
        )
    number = {value: k for k, value in enumerate(classes)} | {None: UNLABELLED}
    for split, values in known.items():
        strangers = {value for value in values if value not in number}
        if strangers:
            raise ValueError(
                f"label_column={column!r} has the classes {sorted(strangers)[:5]} in {split} that train lacks; train "
                f"has {classes[:20]}. Correct the files, or choose another column."
            )
    numbers = {split: np.array([number[value] for value in values], np.int64) for split, values in known.items()}
    return numbers, tuple(map(str, classes))


def _whole_numbers(known: Mapping[str, list[Any]], column: str) -> Mapping[str, list[Any]]:
    """The same with text as numbers if all of it are whole ones; other text stays as it is.

    Raises:
        ValueError: If all of it are numbers but some not whole, or one number is written in two ways.
    """
    texts = sorted({value for values in known.values() for value in values if isinstance(value, str)})
    if all(map(_WHOLE.fullmatch, texts)):
        whole = {text: int(text.partition(".")[0]) for text in texts}
        return {split: [whole.get(value, value) for value in values] for split, values in known.items()}
    numbers = {text: Decimal(text) for text in texts if _NUMBER.fullmatch(text)}
    if len(numbers) == len(texts) and any(number != number.to_integral_value() for number in numbers.values()):
        raise ValueError(
            f"label_column={column!r} holds real numbers, but a label is a class. Choose another column, or null."
        )
    written: dict[Decimal, str] = {}
    for text, number in numbers.items():
        other = written.setdefault(number, text)
        if other != text:
            raise ValueError(
                f"label_column={column!r} holds {other!r} and {text!r}, which may be one class or two. Write each class in "
                "one way."
            )
    return known


def _look(value: str) -> str:
    """Normalise a name, whatever its capitals, blanks and the way its accents are stored."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def _known(value: Any, column: str) -> Any:
    """A label without blanks around it, bytes as text; None if there is none."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"label_column={column!r} holds the bytes {value!r}, which are not UTF-8 text. Choose another column."
            ) from error
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and value != value else value
