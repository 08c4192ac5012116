"""Few labels: as many of each class, within each other, and of the train split alone."""

import numpy as np
import pytest
import torch

from ssl_lab.data.columns import Decoded, LazyColumn, Ragged, take
from ssl_lab.data.image.digits import Digits
from ssl_lab.data.labelled import balanced_rows

LABELS = np.repeat([2, 0, 1, -1], [5, 50, 40, 30])


@pytest.mark.parametrize(
    ("number", "counts"), [(3, [1, 1, 1]), (15, [5, 5, 5]), (16, [5, 5, 6]), (45, [5, 20, 20]), (95, [5, 40, 50])]
)
def test_classes_are_as_even_as_they_can_be(number, counts):
    rows = balanced_rows(LABELS, fraction=number / 95, seed=0)
    assert len(set(rows)) == len(rows) == number and (np.diff(rows) > 0).all()
    assert sorted(np.unique(LABELS[rows], return_counts=True)[1]) == counts
    assert -1 not in LABELS[rows]


def test_smaller_parts_lie_within_larger_ones_and_the_seed_chooses():
    parts = [set(balanced_rows(LABELS, fraction=number / 95, seed=1)) for number in range(3, 96)]
    assert all(smaller < larger for smaller, larger in zip(parts, parts[1:], strict=False))
    assert set(balanced_rows(LABELS, fraction=0.2, seed=2)) != set(balanced_rows(LABELS, fraction=0.2, seed=1))


def test_fewer_labels_than_classes_are_refused():
    with pytest.raises(ValueError, match=r"these are 2 labels for 3 classes. Set data.label_fraction to 0.032 or more"):
        balanced_rows(LABELS, fraction=2 / 95, seed=0)
    with pytest.raises(ValueError, match="data.label_seed=3 has no effect with data.label_fraction=1"):
        Digits(label_seed=3)
    for fraction in (0, 1.1):
        with pytest.raises(ValueError, match="Choose a number above 0"):
            Digits(label_fraction=fraction)


def test_the_train_split_alone_becomes_smaller():
    whole, few = Digits(), Digits(label_fraction=0.1)
    train = few.columns("train")
    assert len(train["image"]) == len(train["label"]) == round(0.1 * len(whole.columns("train")["label"])) == 121
    assert {12, 13} == set(train["label"].bincount().tolist())
    images = {bytes(image.numpy()): int(k) for image, k in zip(*whole.columns("train").values(), strict=True)}
    assert all(images[bytes(image.numpy())] == int(k) for image, k in zip(*train.values(), strict=True))
    for split in ("pretrain", "val", "test"):
        assert torch.equal(few.columns(split)["image"], whole.columns(split)["image"])
    assert few.spec == whole.spec and few.fingerprint["test"] == whole.fingerprint["test"]
    assert few.fingerprint["train"].startswith("121 ") and whole.fingerprint["train"].startswith("1213 ")


def test_rows_of_any_column_can_be_taken(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    rows, batch = np.array([1, 4, 6]), np.array([2, 0])
    np.save(tmp_path / "values.npy", values)
    files = [tmp_path / f"{k}.npy" for k in range(8)]
    for file, row in zip(files, values, strict=True):
        np.save(file, row)
    columns = [
        values,
        torch.from_numpy(values),
        np.load(tmp_path / "values.npy", mmap_mode="r"),
        LazyColumn(values.__getitem__, values.shape, values.dtype),
        Ragged.from_rows(list(values)),
        Decoded(files=files, decode=np.load, row_shape=(3,), dtype=values.dtype),
    ]
    for column in columns:
        taken = take(column, rows)
        assert len(taken) == 3 and np.array_equal(np.asarray(taken[batch]), values[[6, 1]])
        assert not isinstance(taken, np.memmap)
