"""Rows of a source that make up each split."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.base import PRETRAIN, DataModule, NoSuchSplitError

UNLABELLED = -1
"""The label of a row without one, as in Hugging Face data sets."""

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
    PRETRAIN: ("pretrain", "unlabeled", "unlabelled", "unsupervised"),
}
_SPLIT_OF = {
    f"{word}{ending}": split
    for split, words in _SPLIT_WORDS.items()
    for word in words
    for ending in ("", "set", "data", *("ab" if split == "test" else ""))  # CoNLL-2003 has testa and testb
}
_PLAIN_WORDS = ("training", "validation", "testing", "evaluation")


@dataclass(frozen=True)
class Part:
    """Rows of one source split.

    Attributes:
        source: Name of the source split.
        rows: Ascending row numbers in it.
    """

    source: str
    rows: NDArray[np.int64]


@lru_cache(maxsize=4096)
def splits_in(name: str) -> frozenset[str]:
    """The splits whose words are in a name; ``unlabeled_train`` is for pretraining alone."""
    found = frozenset(_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF)
    return frozenset({PRETRAIN}) if found == {PRETRAIN, "train"} else found


def split_named(name: str) -> str | None:
    """The split that a file, folder or hub split is named after (``brown.valid.txt`` is ``val``); None for no or several."""
    found = splits_in(name)
    return next(iter(found)) if len(found) == 1 else None


def named_plainly(name: str) -> bool:
    """Return whether a name is only an English word that may or may not mean a split, as ``training.txt``."""
    return _words(name)[0] in _PLAIN_WORDS


def _words(name: str) -> list[str]:
    """Words of letters, in lower case; a capital after a small letter begins one (``TestSet``)."""
    name = re.sub("(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    return re.findall(r"[^\W\d_]+", name.lower()) or [""]


@dataclass(kw_only=True, eq=False, repr=False)
class CutModule(DataModule):
    """Data from sources that may lack splits, which are then cut from the training samples.

    Args:
        val_fraction: Share of the training samples held out as ``val`` where the source has none; 0 for none.
        test_fraction: Share of the training samples held out as ``test`` where the source has none; 0 for none.
        split_seed: Seed of the cuts of ``val`` and ``test``.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If nothing would be left to train on.
        """
        super().__post_init__()
        if not (0 <= self.val_fraction < 1 and 0 <= self.test_fraction < 1):
            raise ValueError(
                f"val_fraction and test_fraction are shares of the training samples, found {self.val_fraction} and "
                f"{self.test_fraction}. Choose numbers from 0 (no such split) to below 1."
            )

    def cut_notes(self, splits: Collection[str]) -> list[str]:
        """Describe the splits cut from the training samples of a source with these splits, to report with them."""
        shares = {"val": self.val_fraction, "test": self.test_fraction}
        cut = [f"{name} ({share:.0%})" for name, share in shares.items() if name not in splits and share > 0]
        return [f"{' and '.join(cut)} cut from train"] if cut else []


def plan_splits(
    labels: Mapping[str, NDArray[np.int64]], *, val_fraction: float, test_fraction: float, split_seed: int
) -> dict[str, Part]:
    """Plan the rows of each split; splits that the source lacks are cut from train, stratified by label.

    A ``val`` or ``test`` split whose labels are withheld, as those of benchmarks with a server are, counts as lacking.

    Args:
        labels: Label of every row by source split, -1 where unknown; ``train`` is required.
        val_fraction: Share of the training rows (without test) for ``val``; 0 for none.
        test_fraction: Share of the training rows for ``test``; 0 for none.
        split_seed: Seed of the cuts of ``val`` and ``test``.

    Returns:
        ``train``, and where they exist ``val``, ``test`` and ``pretrain``.

    Raises:
        ValueError: If there is no ``train``, or too few rows to cut from.
    """
    if "train" not in labels:
        raise ValueError(f"A data set needs a split named train, found {sorted(labels)}. Rename one of them.")
    labelled = bool((labels["train"] != UNLABELLED).any())
    parts = {}
    for name, split_labels in labels.items():
        if name in ("val", "test") and labelled and (split_labels == UNLABELLED).all():
            warnings.warn(
                f"The {name} split has no labels but the train split has; it is left out and cut from train instead.",
                stacklevel=2,
            )
        else:
            parts[name] = Part(name, np.arange(len(split_labels)))
    for salt, (name, fraction) in enumerate((("test", test_fraction), ("val", val_fraction))):
        if name not in parts and fraction > 0:
            rows = parts["train"].rows
            kept, cut = _cut(labels["train"][rows], fraction=fraction, seed=(split_seed, salt))
            parts |= {"train": Part("train", rows[kept]), name: Part("train", rows[cut])}
    return parts


def find_split(split: str, available: Collection[str]) -> str:
    """The stored split that serves ``split``: ``pretrain`` is ``train`` unless the data has unlabelled samples.

    Raises:
        NoSuchSplitError: If there is none; names those that exist.
    """
    stored = "train" if split == PRETRAIN and PRETRAIN not in available else split
    if stored not in available:
        raise NoSuchSplitError(
            f"There is no split {split!r}; the splits of this data set are {sorted({PRETRAIN, *available})}. "
            "Name one of them, or set data.val_fraction above 0 if the val split is missing."
        )
    return stored


def _cut(
    labels: NDArray[np.int64], *, fraction: float, seed: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kept and cut rows: a systematic sample of the shuffled rows ordered by label, so each class gives its share."""
    num, num_cut = len(labels), max(1, round(fraction * len(labels)))
    if num_cut >= num:
        raise ValueError(
            f"Cannot cut a share of {fraction} from {num} training {'sample' if num == 1 else 'samples'}: none would be left "
            "to train on. Give more samples (of plain text, data.sample_by=line makes each line one), or cut nothing: "
            "data.val_fraction=0 data.test_fraction=0."
        )
    order = np.random.default_rng(seed).permutation(num)
    order = order[np.argsort(labels[order], kind="stable")]
    cut = np.zeros(num, dtype=bool)
    cut[order[((np.arange(num_cut) + 0.5) * num / num_cut).astype(np.int64)]] = True
    return np.flatnonzero(~cut), np.flatnonzero(cut)
