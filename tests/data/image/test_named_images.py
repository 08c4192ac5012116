"""Tiny copies of the data sets in torchvision's own formats, with their checksums, read by torchvision itself."""

import hashlib
import pickle

import numpy as np
import pytest
import scipy.io
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN

from ssl_lab.data.image.named_images import NamedImages


def md5(file):
    return hashlib.md5(file.read_bytes()).hexdigest()


def ramp(num, side):
    """Images (num, 3, side, side): the row in red, 0 in green, the column in blue."""
    images = np.zeros((num, 3, side, side), np.uint8)
    images[:, 0] = np.arange(num)[:, None, None]
    images[:, 2] = np.arange(side)
    return images


def check(data, *, num_train, num_test):
    test = np.array(data.columns("test")["image"])
    np.testing.assert_array_equal(test, ramp(num_test, test.shape[-1]))
    train = np.concatenate([data.columns(split)["image"][:, 0, 0, 0] for split in ("train", "val")])
    assert sorted(train.tolist()) == list(range(num_train))
    assert data.columns("train")["label"].tolist() == [i % 10 for i in data.columns("train")["image"][:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "dataset", "key"), [("cifar10", CIFAR10, "labels"), ("cifar100", CIFAR100, "fine_labels")]
)
@pytest.mark.parametrize("own_folder", [False, True])
def test_cifar(tmp_path, monkeypatch, name, dataset, key, own_folder):
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    for file, num in (("train", 20), ("test", 10)):
        content = {"data": ramp(num, 32).reshape(num, -1), key: [i % 10 for i in range(num)]}
        (folder / file).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({dataset.meta["key"]: [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(dataset, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(dataset, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "filename": "meta", "md5": md5(folder / "meta")})
    data = NamedImages(name, root=str(folder if own_folder else tmp_path))
    check(data, num_train=20, num_test=10)
    assert data.spec.class_names[3] == "class 3" and data.spec.shape == (3, 32, 32)


def test_stl10(tmp_path, monkeypatch):
    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    for name, num in (("train", 20), ("test", 10), ("unlabeled", 5)):
        ramp(num, 96).transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")  # stored column by column
        (np.arange(num) % 10 + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")  # stored from 1
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    names = ["train_X.bin", "train_y.bin", "unlabeled_X.bin"]
    monkeypatch.setattr(STL10, "train_list", [[name, md5(folder / name)] for name in names])
    monkeypatch.setattr(STL10, "test_list", [[name, md5(folder / name)] for name in ("test_X.bin", "test_y.bin")])
    data = NamedImages("stl10", root=str(tmp_path))
    check(data, num_train=20, num_test=10)
    assert data.columns("pretrain")["image"].shape == (5, 3, 96, 96) and set(data.columns("pretrain")) == {"image"}
    assert data.spec.class_names[3] == "class 3"


def test_svhn(tmp_path, monkeypatch):
    files = {}
    for split, num in (("train", 20), ("test", 10)):
        file = tmp_path / f"{split}_32x32.mat"
        labels = np.where(np.arange(num) % 10 == 0, 10, np.arange(num) % 10)  # stored: 10 for the digit 0
        scipy.io.savemat(file, {"X": ramp(num, 32).transpose(2, 3, 1, 0), "y": labels[:, None]})
        files[split] = ["", file.name, md5(file)]
    monkeypatch.setattr(SVHN, "split_list", files)
    data = NamedImages("svhn", root=str(tmp_path))
    check(data, num_train=20, num_test=10)
    assert data.spec.class_names == tuple("0123456789")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03" + b"\0\0\0\2" * 3 + b"\1" * 7])
def test_a_truncated_file_is_named(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="Cannot read .*train-images-idx3-ubyte: it is not a complete idx file"):
        NamedImages("mnist", root=str(tmp_path)).spec  # noqa: B018
