"""Labels that were given in Python: numbers or names, some of them unknown."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ssl_lab.api.pixels import as_array
from ssl_lab.api.reader import called

_MISSING = ("NAType", "NaTType")
"""Classes of what pandas writes where a value is missing."""
_MOST_CLASSES = 1_000_000


def label_values(labels: Any, num_samples: int) -> list[int | str | None]:
    """One label for each sample: whole numbers from 0 up, names, or None where a label is unknown.

    None, NaN, blank text, -1 and masked elements mean unknown, also among names.

    Args:
        labels: An array, a tensor, or any sequence of numbers or names, of which each may be an array of one element.
        num_samples: How many there should be.

    Raises:
        ValueError: If they are of another number, or no classes.
    """
    if isinstance(labels, str | bytes | Mapping | Set) or not hasattr(labels, "__iter__"):
        raise ValueError(f"Cannot use {called(labels)} as labels of {num_samples} samples. Give one label for each.")
    if hasattr(labels, "detach") or isinstance(labels, np.ndarray):
        array = labels if isinstance(labels, np.ma.MaskedArray) else as_array(labels)
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if array.ndim != 1 or len(array) != num_samples:
            raise ValueError(
                f"Cannot use labels of shape {array.shape} for {num_samples} samples. Give one label for each, or None "
                "without."
            )
        if array.dtype.kind == "U":
            _refuse_written_out(array)
        labels = array.tolist()
    found = [_value(label) for label in labels]
    if len(found) != num_samples:
        raise ValueError(
            f"Cannot use {len(found)} labels for {num_samples} samples. Give one label for each, or None without."
        )
    if any(isinstance(value, str) for value in found):
        return [None if value is None else str(value) for value in found]
    return found


def _value(label: Any) -> int | str | None:
    if hasattr(label, "detach") or isinstance(label, np.ndarray | np.generic | list | tuple):
        array = as_array(label)
        if array.size != 1:
            raise ValueError(f"Cannot use {called(label)} of shape {array.shape} as a label. Give one class a sample.")
        label = array.item()
    if label is None or type(label).__name__ in _MISSING:
        return None
    if isinstance(label, bytes):
        label = label.decode("utf-8", "backslashreplace")
    if isinstance(label, str):
        return label.strip() or None
    if not isinstance(label, float | SupportsIndex):  # NumPy's numbers are Python's by now
        raise ValueError(f"Cannot use {called(label)} as a label. Give whole numbers from 0 up, or names.")
    label = label if isinstance(label, float) else int(label)
    if label != label:
        return None
    if label in (float("inf"), float("-inf")) or label != int(label):
        raise ValueError(f"Cannot use real numbers as labels, found {label}. Give classes.")
    if label < -1:
        raise ValueError(f"Cannot use {label} as a label. Give numbers from 0 up, and -1 where it is unknown.")
    return None if label == -1 else int(label)


def _refuse_written_out(words: NDArray[Any]) -> None:
    """Refuse missing values that NumPy has turned into text, as in ``numpy.array(["cat", numpy.nan])``.

    Raises:
        ValueError: With their number.
    """
    given = np.unique(words).tolist()
    for text in ("nan", "-1"):
        if text in given and not all(word.strip("-").isdigit() for word in given):
            raise ValueError(
                f"Cannot use these labels: {int((words == text).sum())} of {len(words)} are the text {text!r}, which NumPy "
                "writes for a missing value among names. Give a list with None where a label is unknown, or rename the class."
            )


def as_labels(
    labels: Any, num_samples: int, known: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels 0, 1, ... of samples, -1 where unknown, and the names of the classes.

    Args:
        labels: As of :func:`label_values`.
        num_samples: How many there should be.
        known: Names of the classes in label order, if they have any.

    Raises:
        ValueError: If they are of another number, or no classes.
    """
    values = label_values(labels, num_samples)
    if num_samples and all(value is None for value in values):
        warnings.warn(
            f"All {num_samples} labels are unknown (None, NaN, blank or -1): the samples are used without labels.",
            stacklevel=2,
        )
    if all(value is None or isinstance(value, int) for value in values):
        numbered = [-1 if value is None else int(value) for value in values]
        highest = max(numbered, default=-1)
        if highest >= _MOST_CLASSES:
            raise ValueError(
                f"Cannot use {highest} as a label: classes are counted from 0. Give numpy.unique(labels, "
                "return_inverse=True)[1], or names."
            )
        if known is not None and highest >= len(known):
            raise ValueError(f"Cannot name label {highest}: there are {len(known)} names of classes. Name all.")
        return np.array(numbered, np.int64), tuple(map(str, known if known is not None else range(highest + 1)))
    words = [None if value is None else str(value) for value in values]
    found = sorted({word for word in words if word is not None})
    names = tuple(known or found)
    if strangers := sorted(set(found) - set(names)):
        raise ValueError(
            f"Cannot use label {strangers[0]!r}: the classes are {', '.join(names[:10])}. Name it among them."
        )
    number = {name: k for k, name in enumerate(names)}
    return np.array([-1 if word is None else number[word] for word in words], np.int64), names
