"""The handwritten digits bundled with scikit-learn: real images that need no download."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.columns import Columns
from ssl_lab.data.image.base import image_spec
from ssl_lab.data.image.given import GivenImages
from ssl_lab.data.labelled import LabelledModule
from ssl_lab.data.splits import CutModule, Part, find_split, plan_splits
from ssl_lab.modalities.image import ImageSpec

TEST_FRACTION = 0.25
TEST_SEED = 0


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(GivenImages, CutModule, LabelledModule):
    """1,797 handwritten digits, 8x8 greys, ten classes; a fixed quarter of them, stratified, is the test split.

    References:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (1998). UCI, doi:10.24432/C50P49
    """

    test_fraction: float = field(default=0, init=False)  # of the digits besides the fixed test split

    @property
    def mirrored(self) -> bool:
        """False."""
        return False

    @cached_property
    def _parts(self) -> dict[str, Part]:
        _, labels = _read_digits()
        test = plan_splits({"train": labels}, val_fraction=0, test_fraction=TEST_FRACTION, split_seed=TEST_SEED)
        rest = test["train"].rows
        val = plan_splits(
            {"train": labels[rest]}, val_fraction=self.val_fraction, test_fraction=0, split_seed=self.split_seed
        )
        return {"test": test["test"]} | {name: Part("train", rest[part.rows]) for name, part in val.items()}

    @cached_property
    def _splits(self) -> dict[str, dict[str, Tensor]]:
        images, labels = _read_digits()
        return {
            name: {"image": torch.from_numpy(images[part.rows]), "label": torch.from_numpy(labels[part.rows])}
            for name, part in self._parts.items()
        }

    def origin(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """All splits are cut from the digits in scikit-learn's order."""
        rows = self._parts[find_split(split, self._parts)].rows
        return "digits", rows[self._kept] if self.keeps_few(split) else rows

    @cached_property
    def spec(self) -> ImageSpec:
        """Facts of the data."""
        return image_spec(self._splits["train"]["image"].numpy(), class_names=tuple("0123456789"))

    def columns(self, split: str) -> Columns:
        """Images uint8 (N, 1, 8, 8) and labels of a split.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self.few(split, self._splits[find_split(split, self._splits)])


@cache
def _read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 1, 8, 8) and labels from scikit-learn's file; importing its reader would take longer than a short run."""
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is a dependency"
    table = np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64
    )
    images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # stored values are 0..16
    return images, table[:, -1]
