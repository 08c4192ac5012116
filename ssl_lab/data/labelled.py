"""Data sets that keep only a fraction of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.base import DataModule
from ssl_lab.data.columns import Columns, take
from ssl_lab.data.fingerprint import content_digest


@dataclass(kw_only=True, eq=False, repr=False)
class LabelledModule(DataModule):
    """Data with labels, of whose ``train`` split a part may be kept: all else stays, also what methods pretrain on.

    Args:
        label_fraction: Share of the labelled training samples that ``train`` keeps, the same number of each class as far
            as there are as many; with one seed, a smaller share is part of a larger one.
        label_seed: Seed of the choice of labelled samples.
    """

    label_fraction: float = 1.0
    label_seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If the fraction is none, or the seed has no effect.
        """
        super().__post_init__()
        if not 0 < self.label_fraction <= 1:
            raise ValueError(
                f"label_fraction is a share of the labelled training samples, found {self.label_fraction}. Choose a number "
                "above 0, such as 0.01 or 0.1, to 1 for all."
            )
        if self.label_seed != 0 and self.label_fraction == 1:
            raise ValueError(
                f"data.label_seed={self.label_seed} has no effect with data.label_fraction=1, which keeps all labels. Leave "
                "it out, or set data.label_fraction below 1."
            )

    def keeps_few(self, split: str) -> bool:
        """Return whether only a part of the split is kept."""
        return split == "train" and self.label_fraction < 1

    def few(self, split: str, columns: Columns) -> Columns:
        """The columns of a split, of ``train`` the rows that are kept."""
        if not self.keeps_few(split):
            return columns
        self._all_train = columns
        return {name: take(column, self._kept) for name, column in columns.items()}

    @cached_property
    def _kept(self) -> NDArray[np.int64]:
        labels = self._all_train.get("label")
        if labels is None:
            raise ValueError(
                f"Cannot keep a share of {self.label_fraction} of the labels of {self.title}: it has none. Set "
                "data.label_fraction=1, or choose data with labels."
            )
        return balanced_rows(np.asarray(labels), fraction=self.label_fraction, seed=self.label_seed)

    def column_digest(self, split: str, name: str) -> str:
        """Digest of a column's content, of the kept rows that of these."""
        return (
            content_digest(self.columns(split)[name]) if self.keeps_few(split) else super().column_digest(split, name)
        )


def balanced_rows(labels: NDArray[np.int64], *, fraction: float, seed: int) -> NDArray[np.int64]:
    """Ascending numbers of some labelled rows, as many of each class as far as classes have them.

    Args:
        labels: Labels (N,), -1 where unknown.
        fraction: Share of the labelled rows, rounded to a whole number.
        seed: Seed of the choice.

    Raises:
        ValueError: If there would be less than one row of each class.
    """
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(labels[labels >= 0]))
    rows = [rng.permutation(np.flatnonzero(labels == k)) for k in classes]
    number = round(fraction * sum(map(len, rows)))
    if number < max(1, len(rows)):
        raise ValueError(
            f"Cannot keep a share of {fraction} of {sum(map(len, rows))} labels: these are {number} labels for {len(rows)} "
            f"classes. Set data.label_fraction to {len(rows) / max(1, sum(map(len, rows))):.2g} or more."
        )
    counts = np.zeros(len(rows), dtype=np.int64)
    sizes = np.array([len(found) for found in rows])
    while missing := number - int(counts.sum()):
        open_ = np.flatnonzero(counts < sizes)
        share = max(1, missing // len(open_))
        chosen = open_[:missing] if share == 1 and missing < len(open_) else open_
        counts[chosen] = np.minimum(counts[chosen] + share, sizes[chosen])
    return np.sort(np.concatenate([found[:count] for found, count in zip(rows, counts, strict=True)]))
