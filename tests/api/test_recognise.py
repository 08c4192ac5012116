"""What is given, recognised as what it is, or refused with what to do."""

import os

import datasets
import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lab.api.given import ImageFiles, Images, Texts
from ssl_lab.api.recognise import recognise
from ssl_lab.data.image.digits import Digits
from ssl_lab.data.image.named_images import NamedImages

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
FIRST = IMAGES.transpose(0, 3, 1, 2)
LABELS = [0, 1, 0, 1, 0, 1]
TEXTS = [f"text {k}" for k in range(6)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Pairs(torch.utils.data.Dataset):
    """Any kind of item."""

    def __init__(self, item, classes=None):
        self.item = item
        if classes:
            self.classes = classes

    def __len__(self):
        return 6

    def __getitem__(self, k):
        return self.item(k)


class Datum(L.LightningDataModule):
    """Lightning's kind of data."""


@pytest.mark.parametrize(
    "item",
    [
        lambda k: (Image.fromarray(IMAGES[k]), LABELS[k]),
        lambda k: (torch.from_numpy(FIRST[k] / 255), torch.tensor(LABELS[k])),
        lambda k: {"image": IMAGES[k], "label": LABELS[k]},
        lambda k: {"pixel_values": IMAGES[k], "labels": np.int64(LABELS[k])},
    ],
)
def test_items_of_a_dataset_are_images_with_labels(item):
    found = recognise(Pairs(item, classes=["cat", "dog"]))
    assert isinstance(found, Images) and found.labelled and found.title == "Pairs"
    np.testing.assert_array_equal(found.pixels["train"], FIRST)
    assert found.labels["train"].tolist() == LABELS and found.class_names == ("cat", "dog")


def test_items_without_labels_and_of_texts():
    assert recognise(Pairs(lambda k: IMAGES[k])).labelled is False
    assert recognise(Pairs(lambda k: (IMAGES[k],))).labelled is False
    found = recognise(Pairs(lambda k: (TEXTS[k], "ab"[k % 2])))
    assert isinstance(found, Texts) and list(found.labels["train"]) == list("ababab")


def test_lists_are_texts_files_or_images(folder):
    assert list(recognise(TEXTS).texts["train"]) == TEXTS
    assert list(recognise(np.array(TEXTS)).texts["train"]) == TEXTS
    for k, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{k}.png")
    files = recognise([f"{k}.png" for k in range(6)], labels=list("ababab"))
    assert isinstance(files, ImageFiles) and files.paths["train"][3] == str(folder / "3.png")
    assert recognise(list(IMAGES)).pixels["train"].shape == (6, 3, 4, 4)
    assert recognise("0.png").paths["train"] == [str(folder / "0.png")]


def test_places_are_read_where_they_lie(folder):
    (folder / "photos").mkdir()
    Image.fromarray(IMAGES[0]).save(folder / "photos/a.png")
    assert recognise("photos").settings() == {"data": "image_folder", "data.root": str(folder / "photos")}
    assert recognise(folder / "photos", image_size=8).settings()["data.image_size"] == 8
    (folder / "corpus.txt").write_text("a text\n")
    assert recognise("corpus.txt").settings() == {"data": "text_files", "data.path": str(folder / "corpus.txt")}
    np.save(folder / "x.npy", IMAGES)
    assert recognise("x.npy").pixels["train"].shape == (6, 3, 4, 4)
    assert recognise("digits").settings() == {"data": "digits"}


def test_data_modules_are_their_settings():
    assert recognise(Digits()).settings() == {"data": "digits"}
    assert recognise(Digits(batch_size=32, seed=3)).settings() == {"data": "digits", "data.batch_size": 32, "seed": 3}
    found = recognise(NamedImages("cifar10", root="copy")).settings()
    assert found == {"data": "cifar10", "data.root": "copy"}


def test_what_lies_in_memory_is_written_once_by_its_content():
    first = recognise(IMAGES, labels=LABELS).settings()["data.path"]
    assert recognise(FIRST / 255, labels=np.array(LABELS)).settings()["data.path"] == first
    assert recognise(IMAGES, labels=[1, *LABELS[1:]]).settings()["data.path"] != first
    assert recognise(IMAGES).settings()["data.path"] != first
    texts = recognise(TEXTS).settings()["data.path"]
    assert recognise(TEXTS).settings()["data.path"] == texts != recognise(TEXTS[::-1]).settings()["data.path"]


def test_hugging_face_tables_are_images_or_texts():
    pictures = datasets.Dataset.from_dict({"picture": [Image.fromarray(image) for image in IMAGES], "label": LABELS})
    found = recognise(pictures)
    assert found.is_images and found.label == "label" and found.settings()["data"] == "hub_images"
    assert found.settings() == recognise(pictures).settings()
    by_split = recognise(datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})}))
    assert by_split.settings()["data"] == "text_files" and by_split.labelled is False


def test_splits_are_joined():
    found = recognise({"train": IMAGES, "test": FIRST[:2]}, labels={"train": LABELS, "test": [0, 1]})
    assert found.pixels["test"].shape == (2, 3, 4, 4) and found.labels["test"].tolist() == [0, 1]
    assert list(recognise({"train": TEXTS, "val": TEXTS[:1]}).texts) == ["train", "val"]


@pytest.mark.parametrize(
    ("given", "more", "told"),
    [
        ((IMAGES, LABELS), {}, "a tuple: .*labels as labels="),
        (Datum(), {}, "a Datum: ssl_lab draws its own batches. Give its Dataset"),
        (torch.utils.data.DataLoader([1]), {}, "loader.dataset"),
        (torch.nn.Linear(2, 2), {}, "a Linear: it is a network"),
        (3, {}, "an int. Give an array or tensor of images"),
        (None, {}, "from None"),
        ([], {}, "an empty list"),
        ([IMAGES[0], "text"], {}, r"mixed things \(a str, an ndarray\)"),
        ([(IMAGES[0], 1)], {}, "list of tuples"),
        (np.array([IMAGES[0], IMAGES[1][:2]], dtype=object), {}, "array of objects"),
        (["a.png", "b.png"], {}, "Cannot read a.png: .*1 more of 2"),
        ("digitz", {}, "Did you mean 'digits'"),
        ("one text alone", {}, r"For one text, give a list: \[text\]"),
        ({"images": IMAGES}, {}, "its keys are splits"),
        ({"train": IMAGES, "test": TEXTS}, {}, "different kinds"),
        ({"train": IMAGES, "test": IMAGES[:, :2]}, {}, "different shape"),
        ({"train": IMAGES}, {"labels": LABELS}, "Give a dict: labels="),
        ("digits", {"labels": LABELS}, "Cannot use labels= beside"),
        (Digits(), {"labels": LABELS}, "Cannot use labels= beside"),
        (Pairs(lambda k: ((IMAGES[k], IMAGES[k]), 0)), {}, "views are drawn by ssl_lab"),
        (Pairs(lambda k: (IMAGES[k], IMAGES[k])), {}, "no label"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(given, more, told):
    with pytest.raises(ValueError, match=told):
        recognise(given, **more)


def test_an_empty_folder_and_an_own_class_of_a_script_are_refused(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images and no text files"):
        recognise("empty")

    class Mine(Digits):
        pass

    with pytest.raises(ValueError, match="cannot name a class of a script"):
        recognise(Mine())


def test_labels_that_were_given_win_over_those_of_a_dataset():
    own = datasets.ClassLabel(names=["x", "y"])
    for name in ("kind", "label"):
        rows = datasets.Dataset.from_dict({"text": TEXTS, name: LABELS}).cast_column(name, own)
        found = recognise(rows, labels=[1 - label for label in LABELS])
        assert found.label == "label" and found.splits["train"]["label"][:2] == [1, 0]
    with pytest.raises(ValueError, match="Cannot use 2 labels for 6 samples"):
        recognise(rows, labels=[0, 1])


def test_the_usual_label_of_a_dataset_is_taken_before_other_classes():
    rows = datasets.Dataset.from_dict({"text": TEXTS, "source": LABELS, "label": LABELS})
    for name in ("source", "label"):
        rows = rows.cast_column(name, datasets.ClassLabel(names=["x", "y"]))
    assert recognise(rows).label == "label"


def test_texts_are_never_taken_from_a_guessed_column():
    rows = datasets.Dataset.from_dict({"id": list("abcdef"), "sentence": TEXTS})
    with pytest.raises(ValueError, match=r"several columns hold texts \(id, sentence\)"):
        recognise(rows).samples()
    assert recognise(rows.select_columns("sentence")).samples() == TEXTS


def test_images_of_a_dataset_that_changed_in_their_files_are_read_again(folder):
    found = []
    for pixels in (IMAGES[0], np.zeros((9, 9, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "one.png")
        rows = datasets.Dataset.from_dict({"image": [str(folder / "one.png")] * 3})
        found.append(recognise(rows.cast_column("image", datasets.Image())).settings()["data.path"])
    assert found[0] != found[1]


def test_images_of_a_dataset_at_one_relative_path_of_two_folders_are_two(folder, monkeypatch):
    found = []
    for name, grey in (("a", 10), ("b", 90)):
        (folder / name).mkdir()
        Image.fromarray(np.full((9, 9), grey, np.uint8)).save(folder / name / "one.bmp")
        os.utime(folder / name / "one.bmp", ns=(0, 0))  # as copies keep times
        monkeypatch.chdir(folder / name)
        rows = datasets.Dataset.from_dict({"image": ["one.bmp"] * 3}).cast_column("image", datasets.Image())
        found.append(recognise(rows).settings()["data.path"])
    assert found[0] != found[1]


def test_a_folder_is_read_in_the_order_of_the_command_without_hidden_files(folder):
    from ssl_lab.modalities.image import ImageSpec

    names = ["a/1.png", "a-b/1.png", ".hidden/1.png", "a/._1.png"]
    for k, name in enumerate(names):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 10 * k, np.uint8)).save(folder / "tree" / name)
    spec = ImageSpec(shape=(3, 4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)
    (batch,) = recognise(folder / "tree").batches(None, spec)
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 10]


def test_an_array_in_a_file_takes_labels_and_no_objects(folder):
    np.save(folder / "images.npy", IMAGES)
    assert recognise("images.npy", labels=LABELS).labels["train"].tolist() == LABELS
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="holds objects rather than numbers"):
        recognise("objects.npy")
