import os

import numpy as np
import pytest
import torch
from data.picture_files import grey, two_colours, write_classes

from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.store import cache_folder

SPLITS = ("train", "val", "test")


def values(data, split):
    """The grey value of each image of a split."""
    return np.array(data.columns(split)["image"])[:, 0, 0, 0].tolist()


def test_class_folders(tmp_path):
    data = ImageFolder(str(write_classes(tmp_path / "pets")))
    assert data.spec.shape == (1, 8, 8) and data.spec.num_classes == 2 and data.spec.class_names == ("cat", "dog")
    assert sorted(sum((values(data, split) for split in SPLITS), [])) == [*range(10), *range(100, 110)]
    for split in SPLITS:
        columns = data.columns(split)
        assert columns["label"].dtype == torch.int64
        assert [value // 100 for value in values(data, split)] == columns["label"].tolist()
    assert data.columns("test")["label"].bincount().tolist() == [1, 1]
    assert data.labelled


def test_class_folders_may_be_nested_and_suffixes_upper_case(tmp_path):
    write_classes(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "wild").mkdir()
    os.rename(tmp_path / "pets" / "cat" / "3.png", tmp_path / "pets" / "cat" / "wild" / "3.PNG")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".hidden").mkdir()
    data = ImageFolder(str(tmp_path / "pets"))
    assert sum(len(values(data, split)) for split in SPLITS) == 20


@pytest.mark.parametrize("sub_folder", ["", "images"])
def test_one_folder_is_unlabelled(tmp_path, sub_folder):
    folder = tmp_path / "flat" / sub_folder
    folder.mkdir(parents=True)
    for i in range(10):
        grey(i).save(folder / f"{i}.png")
    data = ImageFolder(str(tmp_path / "flat"))
    assert not data.labelled and data.spec.num_classes is None
    assert set(data.columns("train")) == {"image"} and len(values(data, "train")) == 8


def test_folders_named_by_split(tmp_path):
    write_classes(tmp_path / "train", per_class=4)
    write_classes(tmp_path / "validation", per_class=2)
    write_classes(tmp_path / "test", per_class=1)
    (tmp_path / "unlabeled").mkdir()
    grey(77).save(tmp_path / "unlabeled" / "x.png")
    data = ImageFolder(str(tmp_path))
    assert {s: values(data, s) for s in ("train", "val", "test", "pretrain")} == {
        "train": [0, 1, 2, 3, 100, 101, 102, 103], "val": [0, 1, 100, 101], "test": [0, 100], "pretrain": [77],
    }  # fmt: skip
    assert "label" not in data.columns("pretrain")


def test_a_class_may_be_called_train(tmp_path):
    assert ImageFolder(str(write_classes(tmp_path, names=("car", "train")))).spec.class_names == ("car", "train")


def test_images_of_many_sizes_need_image_size(tmp_path):
    write_classes(tmp_path / "a", per_class=5)
    two_colours((30, 20)).save(tmp_path / "a" / "dog" / "4.png")
    with pytest.raises(ValueError, match=r"4\.png has \(C, H, W\) = \(1, 20, 30\).*data\.image_size"):
        ImageFolder(str(tmp_path / "a")).spec  # noqa: B018
    assert ImageFolder(str(tmp_path / "a"), image_size=6, channels=3).spec.shape == (3, 6, 6)


def test_damaged_files_are_left_out_with_one_counted_warning(tmp_path):
    root = write_classes(tmp_path / "pets", per_class=20)
    for i in range(7):
        (root / "cat" / f"{i}.png").write_bytes((root / "cat" / f"{i}.png").read_bytes()[:40])
    for _ in range(2):  # decoded, and from the cache
        data = ImageFolder(str(root))
        with pytest.warns(UserWarning, match=r"7 images of pets could not be read.*\.png, \.\.\.\.$") as caught:
            data.columns("train"), data.columns("test"), data.spec  # noqa: B018
        assert len(caught) == 1
    left = sum((values(data, split) for split in SPLITS), [])
    assert sorted(left) == [*range(7, 20), *range(100, 120)]
    for split in SPLITS:
        assert [value // 100 for value in values(data, split)] == data.columns(split)["label"].tolist()


def test_errors_name_the_folder(tmp_path):
    def error(root):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            ImageFolder(str(root)).columns("train")
        return str(caught.value)

    assert f"Cannot read data.root={tmp_path / 'no'}: no such file or folder" in error(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert f"Cannot read {tmp_path / 'empty'}: a data set is made of .jpg" in error(tmp_path / "empty")
    grey(0).save(write_classes(tmp_path / "mixed") / "stray.png")
    assert "1 images lie beside them (first: stray.png)" in error(tmp_path / "mixed")
    (write_classes(tmp_path / "hollow") / "bird").mkdir()
    assert "these hold no images: ['bird']" in error(tmp_path / "hollow")
    write_classes(tmp_path / "other" / "train")
    write_classes(tmp_path / "other" / "test", names=("cat", "emu"))
    assert "test split has the class folders ['emu'] that train lacks" in error(tmp_path / "other")
    for file in write_classes(tmp_path / "broken").rglob("*.png"):
        file.write_bytes(b"broken")
    assert "None of the training images of broken can be read" in error(tmp_path / "broken")
    with pytest.raises(ValueError, match="found 2"):
        ImageFolder("x", channels=2)
    with pytest.raises(ValueError, match="image_size"):
        ImageFolder("x", image_size=0)


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
    root = write_classes(tmp_path / "pets", per_class=5)
    grey(0, (9, 9)).save(root / "cat" / "0.png")
    with pytest.raises(ValueError, match="image_size"):
        ImageFolder(str(root)).columns("train")
    assert not [path for path in cache_folder().iterdir() if path.is_dir()]
    grey(0).save(root / "cat" / "0.png")
    assert ImageFolder(str(root)).spec.shape == (1, 8, 8)


def test_the_cache_follows_files_and_options(tmp_path):
    root = write_classes(tmp_path / "pets")
    before = ImageFolder(str(root), val_fraction=0)
    assert len(values(before, "train")) == 18
    grey(50).save(root / "cat" / "new.png")
    grey(51).save(root / "cat" / "newer.png")
    assert len(values(ImageFolder(str(root), val_fraction=0), "train")) == 20
    assert ImageFolder(str(root), image_size=4).spec.shape == (1, 4, 4)
    assert len([path for path in cache_folder().iterdir() if path.is_dir()]) == 3


def test_training_batches_come_from_the_memory_map(tmp_path):
    data = ImageFolder(str(write_classes(tmp_path / "pets")), batch_size=4, device_cache_gib=0)
    assert isinstance(data.columns("train")["image"], np.memmap)
    for batch in data.train_dataloader():
        assert batch["image"].dtype == torch.uint8
        assert (batch["image"][:, 0, 0, 0] // 100 == batch["label"]).all()
    cached = ImageFolder(str(tmp_path / "pets"), batch_size=4)
    for ours, theirs in zip(data.train_dataloader(), cached.train_dataloader(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_constant_channel_has_a_deviation_to_divide_by(tmp_path):
    for i in range(5):
        grey(9).save(tmp_path / f"{i}.png")
    assert ImageFolder(str(tmp_path)).spec.std == pytest.approx([1 / 255])
