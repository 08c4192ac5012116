"""Small folders of every layout: which file is in which split, or why none is."""

import os

import pytest
from data.picture_files import grey

from ssl_lab.data.files.inventory import take_inventory
from ssl_lab.data.image.image_folder import ImageFolder


def write(root, files):
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return str(root)


def layout(source):
    """Paths below the root by split, of text files."""
    found = take_inventory(source, (".txt", ".csv"))
    return {split: [os.sep.join(file.parts) for file in files] for split, files in found.files.items()}


TEXT = {
    "a file for each split": ({"train": ["train.txt"], "val": ["dev.txt"], "test": ["test.txt"]}),
    "words in names": ({"train": ["wiki.train.txt"], "val": ["wiki.valid.txt"], "test": ["wiki.test.txt"]}),
    "capitals and compounds": ({"train": ["TrainSet.txt"], "val": ["VALID.TXT"], "test": ["testdata.txt"]}),
    "other words": ({"train": ["training.csv"], "val": ["validation.csv"], "test": ["evaluation.csv"]}),
    "CoNLL-2003": ({"train": ["eng.train.txt"], "test": ["eng.testa.txt", "eng.testb.txt"]}),
    "shards": (
        {"train": ["train-00000-of-00002.txt", "train-00001-of-00002.txt"], "test": ["test-00000-of-00001.txt"]}
    ),
    "several files of a split": ({"train": ["train_clean.txt", "train_other.txt"], "test": ["test.txt"]}),
    "a folder for each split": ({"train": ["train/a.txt", "train/b.txt"], "test": ["test/a.txt"]}),
    "several folders of a split": ({"train": ["train_clean/a.txt", "train_other/a.txt"], "val": ["dev/a.txt"]}),
    "folders within another": ({"train": ["data/raw/train/a.txt"], "test": ["data/raw/test/a.txt"]}),
    "files within another": ({"train": ["data/train.txt"], "test": ["data/test.txt"]}),
    "files named by split in several folders": ({"train": ["a/train.txt", "b/train.txt"], "test": ["b/test.txt"]}),
    "splits below topics": ({"train": ["art/train/1.txt", "sport/train/1.txt"], "test": ["art/test/1.txt"]}),
    "names in split folders mean nothing": ({"train": ["train/test tube.txt"], "test": ["test/train.txt"]}),
    "deep": ({"train": ["train/a/b/c.txt"], "val": ["val/a/b/c.txt"]}),
    "files and folders": ({"train": ["train.txt"], "test": ["test/a.txt", "test/b.txt"]}),
    "unlabelled": ({"train": ["train.txt"], "pretrain": ["unlabeled_train.txt"]}),
    "unlabelled alone": ({"train": ["unlabeled/a.txt"]}),
    "train alone": ({"train": ["train/a.txt", "train/b.txt"]}),
    "one file": ({"train": ["a.txt"]}),
    "equal files": ({"train": ["a.txt", "b/c.txt", "b/d.txt"]}),
    "a page called training": ({"train": ["evaluation.txt", "faq.txt", "index.txt", "install.txt", "training.txt"]}),
    "a book called train": ({"train": ["how to train a dog.txt", "moby dick.txt"]}),
    "words within words": ({"train": ["contest.txt", "devil.txt", "détest.txt", "trainer.txt"]}),
}


@pytest.mark.parametrize("name", TEXT)
def test_splits_of_text(tmp_path, name):
    expected = TEXT[name]
    write(tmp_path, [file for files in expected.values() for file in files])
    assert layout(str(tmp_path)) == expected


UNCLEAR = {
    "a file beside splits": (["train.txt", "test.txt", "more.txt"], "more.txt is not"),
    "few plain words": (["training.txt", "testing.txt", "more.txt"], "more.txt is not"),
    "a folder beside splits": (["train/a.txt", "test/a.txt", "extra/a.txt"], "extra is not"),
    "a file beside folders": (["train/a.txt", "test/a.txt", "more.txt"], "more.txt is not"),
    "a test file among others": (["a.txt", "b.txt", "c.txt", "test.txt"], "test.txt is named after splits"),
    "unlabelled among others": (["a/1.txt", "b/1.txt", "unlabeled/1.txt"], "unlabeled is named after splits"),
    "two splits in one name": (["train.txt", "train_test.txt"], "train_test.txt is not"),
    "splits below one topic": (["art/train/1.txt", "art/test/1.txt", "sport/1.txt"], "1.txt is not"),
    "no training data": (["val.txt", "test.txt"], "named after test and val, none after train"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_is_refused(tmp_path, name):
    files, reason = UNCLEAR[name]
    with pytest.raises(ValueError, match=rf"Cannot (tell the splits of|train on) .*{reason}.*data\.path="):
        layout(write(tmp_path, files))


def test_each_split_may_be_named(tmp_path):
    write(tmp_path, ["test/a.txt", "test/b.txt", "more.txt", "c.txt"])
    root = str(tmp_path)
    named = take_inventory({"train": f"{root}/test", "dev": [f"{root}/more.txt", f"{root}/c.txt"]}, (".txt",))
    assert {split: [os.path.relpath(path, root) for path in paths] for split, paths in named.paths.items()} == {
        "train": ["test/a.txt", "test/b.txt"],
        "val": ["more.txt", "c.txt"],
    }
    with pytest.raises(ValueError, match="'extra' is not a split"):
        take_inventory({"train": f"{root}/more.txt", "extra": f"{root}/c.txt"}, (".txt",))
    with pytest.raises(ValueError, match=r"c\.txt in val and .*c\.txt in train are one file"):
        take_inventory({"train": f"{root}/c.txt", "val": f"{root}/c.txt"}, (".txt",))


@pytest.mark.parametrize("lost", ["test/", "test/a.md", "test.txt:empty", "test.zip", "test.txt:link"])
def test_a_split_of_which_nothing_can_be_used_is_refused(tmp_path, lost):
    write(tmp_path, ["train/a.txt"] if "/" in lost else ["train.txt"])
    name, _, how = lost.partition(":")
    if lost.endswith("/"):
        (tmp_path / name).mkdir()
    elif how == "link":
        (tmp_path / name).symlink_to("nowhere")
    else:
        write(tmp_path, [name])
        (tmp_path / name).write_text("" if how == "empty" else name)
    with pytest.raises(ValueError, match="named after test, but test has no file that can be used"):
        layout(str(tmp_path))


def images(root, files):
    for k, name in enumerate(files):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        grey(k).save(file)
    data = ImageFolder(str(root), val_fraction=0, test_fraction=0)
    return {split: sorted(set(names)) for split, names in data._classes.items()}


IMAGES = {
    "no classes": (["1.png", "2.png"], {"train": [""]}),
    "one class": (["cat/1.png", "cat/wild/2.png"], {"train": [""]}),
    "classes": (["cat/1.png", "dog/old/2.png"], {"train": ["cat", "dog"]}),
    "classes within another": (["pets/cat/1.png", "pets/dog/2.png"], {"train": ["cat", "dog"]}),
    "a class called train": (["car/1.png", "train/1.png"], {"train": ["car", "train"]}),
    "classes called like splits": (
        ["train/test/1.png", "train/car/2.png", "val/test/1.png"], {"train": ["car", "test"], "val": ["test"]},
    ),
    "splits below classes": (
        ["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"], {"train": ["cat", "dog"], "test": ["cat"]},
    ),
    "a class that test lacks": (
        ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png"], {"train": ["cat", "dog"], "test": ["cat"]},
    ),
    "splits joined": (
        ["train_clean/cat/1.png", "train_other/dog/1.png", "test/cat/1.png"],
        {"train": ["cat", "dog"], "test": ["cat"]},
    ),
    "test without labels": (
        ["train/cat/1.png", "train/dog/1.png", "test/images/1.png"], {"train": ["cat", "dog"], "test": [""]},
    ),
    "unlabelled in folders": (
        ["train/cat/1.png", "train/dog/1.png", "unlabeled/a/1.png", "unlabeled/b/2.png"],
        {"train": ["cat", "dog"], "pretrain": [""]},
    ),
    "splits without classes": (["train/1.png", "test/1.png"], {"train": [""], "test": [""]}),
    "file names": (["train_1.png", "train_2.png", "test_1.png"], {"train": [""], "test": [""]}),
    "names of many files mean nothing": (["cat/test.png", "cat/1.png", "dog/test_2.png"], {"train": ["cat", "dog"]}),
    "all called val": (["val_1.png", "val_2.png"], {"train": [""]}),
    "one accent in two normal forms": (
        ["train/caf\u00e9/1.png", "train/tea/1.png", "test/cafe\u0301/2.png"],
        {"train": ["caf\u00e9", "tea"], "test": ["caf\u00e9"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_classes_of_images(tmp_path, name):
    files, expected = IMAGES[name]
    assert images(tmp_path, files) == expected


REFUSED = {
    "a class called test": (["car/1.png", "test/1.png"], "test is named after splits, but car is not"),
    "a folder beside splits": (["train/1.png", "test/1.png", "more/1.png"], "more is not"),
    "an image beside splits": (["train/1.png", "test/1.png", "1.png"], "files beside them is not"),
    "an image beside classes": (["cat/1.png", "dog/1.png", "1.png"], "1 images lie beside them"),
    "an image beside classes of test": (
        ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/1.png"], "Sub-folders of test are classes",
    ),
    "a class that train lacks": (
        ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/emu/1.png"], "emu.* that train lacks",
    ),
    "two classes but for capitals": (
        ["train/cat/1.png", "train/dog/1.png", "train/Cat/1.png"], "differ only in capitals",
    ),
    "a class in other capitals": (["train/cat/1.png", "train/dog/1.png", "test/Cat/1.png", "test/dog/1.png"], "Cat"),
    "no training images": (["val/cat/1.png", "test/cat/1.png"], "none after train"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_image_layouts_that_are_refused(tmp_path, name):
    files, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        images(tmp_path, files)


def test_a_folder_for_each_split_has_classes_of_any_name(tmp_path):
    for name in ("test/1.png", "car/1.png", "train/1.png"):
        (tmp_path / name).parent.mkdir()
        grey(1).save(tmp_path / name)
    data = ImageFolder({"train": str(tmp_path)}, val_fraction=0, test_fraction=0)
    assert data.spec.class_names == ("car", "test", "train")
