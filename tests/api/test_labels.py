"""Labels that are given in Python: classes, and samples without one, which are counted."""

import datasets
import numpy as np
import pytest
import torch

from ssl_lab.api.labels import as_labels
from ssl_lab.api.recognise import recognise
from ssl_lab.data.image.arrays import ImageArrays

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
TEXTS = [f"text {k}" for k in range(6)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([0, 2, -1], [0, 2, -1], ("0", "1", "2")),
        (np.array([[0], [1], [1]]), [0, 1, 1], ("0", "1")),
        (np.ma.array([1, 0, 5], mask=[0, 0, 1]), [1, 0, -1], ("0", "1")),
        ([1.0, float("nan"), 0.0], [1, -1, 0], ("0", "1")),
        (torch.tensor([1, 0, 1]), [1, 0, 1], ("0", "1")),
        (["dog", None, "cat"], [1, -1, 0], ("cat", "dog")),
        (["dog", float("nan"), "cat"], [1, -1, 0], ("cat", "dog")),
        (["dog", -1, " cat "], [1, -1, 0], ("cat", "dog")),
        (np.array(["dog", -1, None], object), [0, -1, -1], ("dog",)),
        ([b"a", b"b", " "], [0, 1, -1], ("a", "b")),
        ([1.0, None, np.int64(0)], [1, -1, 0], ("0", "1")),
        ([torch.tensor(1), None, torch.tensor([0])], [1, -1, 0], ("0", "1")),
        (torch.tensor([1, 0, 1], dtype=torch.bfloat16), [1, 0, 1], ("0", "1")),
    ],
)
def test_labels_are_numbers_or_names(labels, numbers, names):
    found = as_labels(labels, 3)
    assert found[0].tolist() == numbers and found[1] == names


@pytest.mark.parametrize(
    ("labels", "known", "told"),
    [
        ([0, 1], None, "for 3 samples"),
        ([0.5, 1, 2], None, "real numbers"),
        ([0, -2, 1], None, "Cannot use -2"),
        ([0, 1, 2], ["a", "b"], "Cannot name label 2"),
        (["a", "b", "c"], ["a", "b"], "Cannot use label 'c'"),
        (np.array(["dog", float("nan"), "cat"]), None, "1 of 3 are the text 'nan', which NumPy"),
        (np.array(["dog", -1, -1]), None, "2 of 3 are the text '-1'"),
        ("abc", None, "Cannot use a str as labels"),
        ({0, 1, 2}, None, "Cannot use a set as labels"),
        (torch.tensor(1), None, r"shape \(\) for 3 samples"),
        ([0, [1, 2], 1], None, "as a label. Give one class a sample"),
        ([0, 10**12, 1], None, "return_inverse=True"),
        ([0, 1, {}], None, "Cannot use a dict as a label"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, known, told):
    with pytest.raises(ValueError, match=told):
        as_labels(labels, 3, known)


def test_numbers_with_unknown_ones_among_them_keep_their_meaning():
    numbers, names = as_labels([10, 2, 0, None, 1], 5)
    assert numbers.tolist() == [10, 2, 0, -1, 1] and len(names) == 11
    assert as_labels([1, 0, None], 3, ["a", "b"])[0].tolist() == [1, 0, -1]


def test_text_labels_of_a_dataset_may_be_missing():
    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, k):
            return TEXTS[k], ["a", None, float("nan"), -1, "b", "a"][k]

    assert recognise(Items()).labels["train"] == ["a", None, None, None, "b", "a"]


def test_unlabelled_images_are_counted_and_data_without_any_label_have_none():
    given = recognise(IMAGES, labels=[0, 1, -1, 0, None, 1])
    data = ImageArrays(given.settings()["data.path"])
    with pytest.warns(UserWarning, match="2 of 6 images of train have no label"):
        assert data._labels["train"].tolist() == [0, 1, -1, 0, -1, 1]
    for samples in (IMAGES, TEXTS):
        with pytest.warns(UserWarning, match="All 6 labels are unknown"):
            assert recognise(samples, labels=[-1] * 6).labelled is False


def test_labels_beside_hugging_face_data_are_of_one_split_and_of_any_kind():
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    for labels in (torch.tensor([[1], [0]] * 3), ["a", -1, 1, float("nan"), "b", None]):
        found = recognise(rows, labels=labels).splits["train"]["label"][:]
        assert found in ([1, 0] * 3, ["a", None, "1", None, "b", None])
    both = datasets.DatasetDict({"train": rows, "test": rows})
    with pytest.raises(ValueError, match="which split these labels are of: the data have train, test"):
        recognise(both, labels=[0, 1] * 3)
    assert "label" in recognise(both, labels={"test": [0, 1] * 3}).splits["test"].column_names
    assert recognise(datasets.DatasetDict({"train": rows}), labels=[0, 1] * 3).label == "label"
