import numpy as np
import pytest

from ssl_lab.data.splits import find_split, plan_splits, split_named


def plan(labels, *, val_fraction=0.1, test_fraction=0.2, split_seed=0):
    return plan_splits(labels, val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed)


def test_cut_splits_are_disjoint_complete_and_stratified():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = plan({"train": labels})
    rows = np.concatenate([parts[split].rows for split in ("train", "val", "test")])
    np.testing.assert_array_equal(np.sort(rows), np.arange(160))
    np.testing.assert_array_equal(np.bincount(labels[parts["test"].rows]), [20, 10, 2])
    np.testing.assert_allclose(np.bincount(labels[parts["val"].rows]), [8, 4, 0.8], atol=1)


def test_cuts_depend_on_the_seed_alone_and_test_not_on_val():
    labels = np.arange(200) % 4
    first, again, other = (plan({"train": labels}, split_seed=seed)["val"].rows for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    tests = [plan({"train": labels}, val_fraction=fraction)["test"].rows for fraction in (0, 0.1, 0.5)]
    np.testing.assert_array_equal(tests[0], tests[1])
    np.testing.assert_array_equal(tests[0], tests[2])


def test_splits_of_the_source_are_kept_whole():
    labels = {"train": np.zeros(10, int), "val": np.zeros(4, int), "test": np.zeros(5, int), "pretrain": np.full(7, -1)}
    parts = plan(labels)
    assert {split: (part.source, len(part.rows)) for split, part in parts.items()} == {
        "train": ("train", 10), "val": ("val", 4), "test": ("test", 5), "pretrain": ("pretrain", 7),
    }  # fmt: skip


def test_a_test_split_with_withheld_labels_is_replaced():
    with pytest.warns(UserWarning, match="test split has no labels"):
        parts = plan({"train": np.arange(20) % 2, "test": np.full(5, -1)})
    assert parts["test"].source == "train" and len(parts["test"].rows) == 4


def test_zero_fractions_cut_nothing_and_too_few_samples_are_an_error():
    assert set(plan({"train": np.zeros(3, int)}, val_fraction=0, test_fraction=0)) == {"train"}
    with pytest.raises(ValueError, match="none would be left to train on.*data.val_fraction=0 data.test_fraction=0"):
        plan({"train": np.zeros(1, int)})


def test_find_split():
    assert find_split("pretrain", ["train", "test"]) == "train"
    assert find_split("pretrain", ["train", "pretrain"]) == "pretrain"
    with pytest.raises(ValueError, match=r"no split 'val'.*\['pretrain', 'test', 'train'\]"):
        find_split("val", ["train", "test"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("brown.valid.txt.gz", "val"),
        ("dev.tsv", "val"),
        ("test-00000-of-00002.parquet", "test"),
        ("unlabeled", "pretrain"),
        ("validation_matched", "val"),
        ("contest.txt", None),
    ],
)
def test_split_names(name, split):
    assert split_named(name) == split
