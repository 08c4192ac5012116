import gzip
import pickle
import struct

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from data.picture_files import grey, two_colours

from ssl_lab.data.image.hub_images import HubImages
from ssl_lab.data.image.named_images import NamedImages


def write_parquet(folder, *, column="img", names=("cat", "dog"), sizes=(("train", 20), ("test", 6))):
    """Parquet files as on the hub; the grey value of an image is its row."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    for split, size in sizes:
        rows = {column: [grey(i) for i in range(size)], "label": [i % len(names) for i in range(size)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def values(data, split):
    return np.array(data.columns(split)["image"])[:, 0, 0, 0].tolist()


def test_parquet_round_trip(tmp_path):
    data = HubImages(str(write_parquet(tmp_path / "pets")))
    assert data.spec.class_names == ("cat", "dog") and data.spec.shape == (1, 8, 8)
    assert values(data, "test") == list(range(6))
    assert data.columns("test")["label"].tolist() == [0, 1, 0, 1, 0, 1]
    assert sorted(values(data, "train") + values(data, "val")) == list(range(20))
    assert data.columns("train")["label"].tolist() == [value % 2 for value in values(data, "train")]


def test_one_parquet_file_has_val_and_test_cut_from_it(tmp_path):
    folder = write_parquet(tmp_path / "pets", sizes=(("all", 20),))
    data = HubImages(str(folder / "all.parquet"))
    assert sorted(sum((values(data, split) for split in ("train", "val", "test")), [])) == list(range(20))


def test_raw_bytes_and_plain_labels(tmp_path):
    grey(3).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    rows = {"picture": [content, b"broken", content, None] * 3, "label": ["b", "b", "a", "a"] * 3}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    data = HubImages(str(tmp_path / "train.parquet"), val_fraction=0, test_fraction=0)
    with pytest.warns(UserWarning, match=r"6 images of train\.parquet .* train\[1\], train\[3\]"):
        assert data.columns("train")["label"].tolist() == [1, 0] * 3
    assert data.spec.class_names == ("a", "b")


def test_columns_that_cannot_be_found(tmp_path):
    rows = {"left": [grey(1)] * 4, "right": [grey(2)] * 4, "kind": [0, 1, 0, 1]}
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image(), "kind": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")

    def columns(**settings):
        data = HubImages(str(tmp_path / "train.parquet"), val_fraction=0, test_fraction=0, **settings)
        return data.columns("train")

    with pytest.raises(ValueError, match=r"\(left, right\).*data\.image_column"):
        columns()
    with pytest.raises(ValueError, match=r"image_column='up' is not a column.*'left', 'right', 'kind'"):
        columns(image_column="up")
    with pytest.raises(ValueError, match="label_column='name' is not a column"):
        columns(image_column="left", label_column="name")
    assert "label" not in columns(image_column="right")
    assert columns(image_column="right", label_column="kind")["label"].tolist() == [0, 1, 0, 1]


def test_without_the_hub_the_error_tells_of_local_copies(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*point data\.path at a local copy"):
        HubImages("nobody/nothing").columns("train")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        HubImages("./nobody/nothing").columns("train")


def test_a_folder_without_data_files(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read .*found none of them\. Point data\.path"):
        HubImages(str(tmp_path)).columns("train")


def write_idx(file, array):
    content = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["", "FashionMNIST", "FashionMNIST/raw"])
def test_fashion_mnist_in_torchvisions_layout_may_be_read_only(tmp_path, place, suffix):
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    for stem, size in (("train", 40), ("t10k", 10)):
        images = np.arange(size)[:, None, None].repeat(28, axis=1).repeat(28, axis=2)
        write_idx(raw / f"{stem}-images-idx3-ubyte{suffix}", images)
        write_idx(raw / f"{stem}-labels-idx1-ubyte{suffix}", np.arange(size) % 10)
    raw.chmod(0o555)
    data = NamedImages("fashion_mnist", root=str(tmp_path / "data" / place))
    assert data.spec.shape == (1, 28, 28) and data.spec.class_names[9] == "Ankle boot"
    assert values(data, "test") == list(range(10)) == data.columns("test")["label"].tolist()
    assert sorted(values(data, "train") + values(data, "val")) == list(range(40))
    assert NamedImages("fashion_mnist", root=str(tmp_path / "data" / place), image_size=32).spec.shape == (1, 32, 32)
    raw.chmod(0o755)


@pytest.mark.parametrize("place", ["", "cifar10"])
def test_named_images_from_parquet(tmp_path, place):
    write_parquet(tmp_path / place)
    data = NamedImages("cifar10", root=str(tmp_path))
    assert values(data, "test") == list(range(6)) and data.spec.num_classes == 2


def test_stl10_pretrains_on_its_unlabelled_split(tmp_path):
    write_parquet(tmp_path)
    rows = {"img": [two_colours((8, 8)).convert("L")] * 3, "label": [-1] * 3}
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "unlabeled.parquet")
    data = NamedImages("stl10", root=str(tmp_path))
    assert len(data.columns("pretrain")["image"]) == 3 and set(data.columns("pretrain")) == {"image"}
    assert len(data.columns("train")["image"]) == 18 and "label" in data.columns("train")


def test_cifar_in_torchvisions_layout_is_checked(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}))
    for root in (tmp_path, folder):
        with pytest.raises(FileNotFoundError, match=r"cifar10 .* local copy .* corrupted.*data\.root"):
            NamedImages("cifar10", root=str(root)).columns("train")


def test_named_images_errors(tmp_path):
    with pytest.raises(
        ValueError, match=r"data set 'cifar'. Set data.name to one of \['cifar10', 'cifar100', 'fashion_mnist'"
    ):
        NamedImages("cifar")
    with pytest.raises(FileNotFoundError, match=r"no such folder.*data\.root"):
        NamedImages("mnist", root=str(tmp_path / "no")).columns("train")
    with pytest.raises(FileNotFoundError, match=r"mnist .* local copy .* no train-images.*data\.root"):
        NamedImages("mnist", root=str(tmp_path)).columns("train")


def test_image_columns_are_bytes_on_the_way_to_a_method(tmp_path):
    data = HubImages(str(write_parquet(tmp_path)), batch_size=3)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].dtype == torch.uint8 and set(batch) == {"image", "label", "index"}
