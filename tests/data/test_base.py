"""What a split is that is not there."""

import pytest
import torch
from arrays import ArrayImages

from ssl_lab.data.base import NoSuchSplitError, has_split
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.engine.baselines import baseline_rows
from ssl_lab.evaluation.probes.knn import KNN


class OddSplits(ArrayImages):
    """No val, an empty test, and a file of a third split that is broken."""

    def columns(self, split):
        if split == "val":
            raise NoSuchSplitError("There is no split 'val'.")
        if split == "broken":
            raise ValueError("Cannot read broken.csv: line 3 has 4 cells. Correct the file.")
        return {name: column[:0] if split == "test" else column for name, column in super().columns(split).items()}


def test_an_empty_split_counts_as_none_and_a_broken_one_is_told():
    data = OddSplits()
    assert [has_split(data, split) for split in ("train", "val", "test")] == [True, False, False]
    with pytest.raises(ValueError, match=r"Cannot read broken\.csv"):
        has_split(data, "broken")
    with pytest.raises(ValueError, match="Cannot read the test split of OddSplits: it has no samples"):
        baseline_rows([KNN()], data, ConvNet(data.spec, widths=(4, 8)), device=torch.device("cpu"))
