import warnings

import datasets
import pytest

from ssl_lab.data.files.labels import encode_labels
from ssl_lab.data.text.hub_text import HubText


def encoded(train, features=None, **others):
    splits = {
        split: datasets.Dataset.from_dict({"label": values}, features=features)
        for split, values in {"train": train, **others}.items()
    }
    labels, names = encode_labels(splits, "label")
    return {split: numbers.tolist() for split, numbers in labels.items()}, names


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        ([-1, 1, -1], [0, 1, 0], ("-1", "1")),
        ([-2, -1, 1], [0, 1, 2], ("-2", "-1", "1")),
        ([3.0, 1.0], [1, 0], ("1.0", "3.0")),
        ([True, False], [1, 0], ("False", "True")),
        (["no", " yes", "no ", "yes"], [0, 1, 0, 1], ("no", "yes")),
        (["-1", "0"], [0, 1], ("-1", "0")),
        (["None", "null", "nan"], [0, 2, 1], ("None", "nan", "null")),
        (["10", "9", "-1"], [2, 1, 0], ("-1", "9", "10")),
        (["2.0", "10", "1"], [1, 2, 0], ("1", "2", "10")),
        (["01", "10", "02"], [0, 2, 1], ("01", "02", "10")),
        (["cat", "10", "9"], [2, 0, 1], ("10", "9", "cat")),
        ([b"b", b"a "], [1, 0], ("a", "b")),
    ],
)
def test_every_value_is_a_class(values, numbers, names):
    assert encoded(values) == ({"train": numbers}, names)


def test_minus_one_beside_0_and_1_is_a_class_and_is_pointed_out():
    with pytest.warns(
        UserWarning, match="2 of 4 rows of train have -1 in 'label', which is read as a class of its own"
    ):
        assert encoded([-1, 0, 1, -1]) == ({"train": [0, 1, 2, 0]}, ("-1", "0", "1"))


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_labels_are_unknown_and_counted(blank):
    with pytest.warns(
        UserWarning, match="1 of 3 rows of train have no label in 'label'. Probes and fine-tuning leave them"
    ):
        assert encoded(["a", blank, "b"]) == ({"train": [0, -1, 1]}, ("a", "b"))


def test_a_number_that_is_none_is_unknown():
    with pytest.warns(UserWarning, match="1 of 3 rows of train have no label"):
        assert encoded([1.0, float("nan"), 0.0]) == ({"train": [1, -1, 0]}, ("0.0", "1.0"))
    with pytest.raises(ValueError, match="blank in all 2 rows of train"):
        encoded(["", ""])


def test_labels_that_are_withheld_are_unknown_in_that_split_alone():
    with warnings.catch_warnings(action="error"):
        assert encoded([0, 1], test=[-1, -1])[0]["test"] == [-1, -1]
    with pytest.warns(UserWarning, match="-1 in 'label', which is read as a class"):
        assert encoded([-1, 0, 1], test=[-1, -1])[0]["test"] == [0, 0], "here -1 is a class"


def test_named_classes_have_minus_one_for_unknown():
    features = datasets.Features({"label": datasets.ClassLabel(names=["cat", "dog"])})
    with pytest.warns(UserWarning, match="1 of 3 rows of train have no label"):
        assert encoded([1, -1, 0], features) == ({"train": [1, -1, 0]}, ("cat", "dog"))


def test_real_numbers_are_no_classes_in_any_split():
    for values in ({"train": [0.5, 1.0]}, {"train": [0.0, 1.0], "test": [0.5]}):
        with pytest.raises(ValueError, match="holds real numbers, but a label is a class"):
            encoded(**values)


def test_splits_may_spell_numbers_differently(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "a,0.0\nb,1.0\nc,2.5\n")
    (tmp_path / "test.csv").write_text("text,label\nd,1\ne,0\n")
    with pytest.raises(ValueError, match="holds real numbers"):
        HubText(str(tmp_path), label_column="label", vocab_size=60).columns("test")
    (tmp_path / "train.csv").write_text("text,label\n" + "a,0.0\nb,1.0\n" * 5)
    data = HubText(str(tmp_path), label_column="label", vocab_size=60)
    assert data.columns("test")["label"].tolist() == [1, 0]


@pytest.mark.parametrize("values", [["01", "1"], ["1", "+1"], ["1e3", "1000", "x"], ["1.0", "1", "x"], [b"1", b"01"]])
def test_one_number_written_in_two_ways_is_refused(values):
    with pytest.raises(ValueError, match="which may be one class or two. Write each class in one way"):
        encoded(values)


def test_text_labels_of_a_split_alone_are_read_like_those_of_train():
    assert encoded(["1", "2"], test=["2.0", "1.0"])[0]["test"] == [1, 0]
    assert encoded(["cat", "dog"], test=["-1", "-1"])[0]["test"] == [-1, -1], "withheld"
    with pytest.raises(ValueError, match="holds '01' and '1', which may be one class or two"):
        encoded(["01", "02"], test=["1"])
    with pytest.raises(ValueError, match="holds real numbers"):
        encoded(["0.5", "1"])


def test_names_that_look_alike_are_pointed_out():
    for one, other in (("Cat", "cat"), ("cafe\u0301", "caf\u00e9"), ("a  cat", "a cat"), ("a cat", "a\u00a0cat")):
        with pytest.warns(UserWarning, match="differ in capitals, blanks or the spelling of accents alone"):
            assert encoded([one, other, "dog"])[1] == tuple(sorted((one, other, "dog")))


def test_bytes_that_are_no_text_are_no_labels():
    with pytest.raises(ValueError, match="which are not UTF-8 text"):
        encoded([b"\xff\xfe"])


def test_labels_of_csv_files_are_as_written(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "a,01\nb,02\nc,10\n" * 5)
    data = HubText(str(tmp_path / "x.csv"), label_column="label", vocab_size=60)
    assert data.class_names == ("01", "02", "10")
    (tmp_path / "x.csv").write_text("text,label\n" + "a,01\nb,1\n" * 5)
    with pytest.raises(ValueError, match="holds '01' and '1'"):
        HubText(str(tmp_path / "x.csv"), label_column="label", vocab_size=60).columns("train")


@pytest.mark.parametrize("values", [["1e30", "1e31"], ["0" + "1" * 32, "12"], ["1e9999", "1"], ["9" * 5000, "1"]])
def test_digits_that_no_number_holds_are_names(values):
    _, names = encode_labels({"train": datasets.Dataset.from_dict({"label": values})}, "label")
    assert names == tuple(sorted(values))
