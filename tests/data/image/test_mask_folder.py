"""Images with masks: pairs, splits, values, and what is refused."""

import numpy as np
import pytest
import torch
from data.picture_files import write_masked as write
from PIL import Image

from ssl_lab.data.image.mask_folder import MaskFolder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["P", "L", "I;16"])
def test_the_values_are_the_classes_whatever_the_colours(tmp_path, kind):
    data = MaskFolder(str(write(tmp_path / "d", kind=kind)))
    assert data.spec.classes("mask").names == ("0", "1", "2") and data.spec.num_classes is None and not data.labelled
    for split in ("train", "val", "test", "pretrain"):
        columns = data.columns(split)
        image, mask = (torch.as_tensor(np.array(columns[name])) for name in ("image", "mask"))
        assert mask.shape == (4, 6, 8) and mask.dtype == torch.uint8
        assert (mask[:, :, -1] == 255).all()
        assert torch.equal(image[:, 0, :, :-1], 10 * mask[:, :, :-1])
    batch = next(iter(data.eval_dataloader("test")))
    assert set(batch) == {"image", "mask", "index"}


def test_folders_may_be_named_and_another_value_may_not_count(tmp_path):
    root = write(tmp_path / "d", splits=("train", "test"))
    for name in ("train", "test"):
        (root / "images" / name).rename(root / name)
        (root / "masks" / name).rename(root / f"{name}annot")
    for file in root.glob("*annot/*.png"):
        values = np.array(Image.open(file))
        Image.fromarray(np.where(values == 255, 2, values).astype(np.uint8)).save(file)
    (root / "classes.txt").write_text("sky\nroad\n")
    places = {"images": {"train": "train", "test": "test"}, "masks": {"train": "trainannot", "test": "testannot"}}
    data = MaskFolder(str(root), **places, ignore_index=2, val_fraction=0.25)
    assert data.spec.classes("mask").names == ("sky", "road")
    assert [len(data.columns(split)["mask"]) for split in ("train", "val", "test")] == [3, 1, 4]
    mask = np.array(data.columns("test")["mask"])
    assert set(np.unique(mask)) == {0, 1, 255}
    with pytest.raises(
        ValueError, match=r"Cannot read the masks of d: they hold the values 2 \(.*png\), but classes are 0 to 1"
    ):
        MaskFolder(str(root), **places, ignore_index=255).columns("train")


def test_lists_say_the_splits(tmp_path, capsys):
    root = write(tmp_path / "d", splits=("any",), num=6)
    (root / "sets").mkdir()
    (root / "sets" / "train.txt").write_text("any/0\nany/1.png\n2\n")
    (root / "sets" / "test.txt").write_text("4\n")
    data = MaskFolder(str(root), lists="sets", val_fraction=0)
    assert [len(data.columns(split)["mask"]) for split in ("train", "test")] == [3, 1]
    assert "2 in no list" in capsys.readouterr().out
    (root / "sets" / "test.txt").write_text("4\n2\n")
    with pytest.raises(ValueError, match=r"line 2 of .*test.txt: 2 is an image named before"):
        MaskFolder(str(root), lists="sets").columns("train")
    (root / "sets" / "test.txt").write_text("9\n")
    with pytest.raises(ValueError, match=r"line 1 of .*test.txt: 9 is no image"):
        MaskFolder(str(root), lists="sets").columns("train")


def test_lists_choose_among_several_folders(tmp_path):
    root = write(tmp_path / "d", splits=("train", "test"), num=3)
    for folder in ("images", "masks"):
        for k in range(3):
            (root / folder / "test" / f"{k}.png").rename(root / folder / "test" / f"t{k}.png")
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "test.txt").write_text("t1.png\n")
    places = {folder: {name: f"{folder}/{name}" for name in ("train", "test")} for folder in ("images", "masks")}
    data = MaskFolder(str(root), **places, lists=".", val_fraction=0)
    assert [len(data.columns(split)["mask"]) for split in ("train", "test")] == [3, 1]
    (root / "images/test/t1.png").rename(root / "images/test/1.png")
    with pytest.raises(ValueError, match=r"train/1.png and .*test/1.png of train have one name"):
        MaskFolder(str(root), **places, lists=".").columns("train")


def test_masks_are_cut_like_their_images_and_by_the_nearest_pixel(tmp_path):
    root = write(tmp_path / "d", size=(80, 40))
    for file in root.glob("images/*/*.png"):  # brightness says the place, the mask too
        Image.fromarray(np.tile(np.arange(0, 160, 2, dtype=np.uint8), (40, 1))).save(file)
    for file in root.glob("masks/*/*.png"):
        Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (40, 1))).save(file)
    columns = MaskFolder(str(root), image_size=10).columns("train")
    image, mask = (np.array(columns[name]).astype(int) for name in ("image", "mask"))
    assert mask.shape == (4, 10, 10) and abs(image[:, 0] - 2 * mask).max() <= 4
    assert mask[0, 0].tolist() == list(range(22, 60, 4))


def test_what_cannot_be_paired_is_counted_and_refused(tmp_path):
    root = write(tmp_path / "d")
    for k in (1, 2):
        (root / f"masks/train/{k}.png").unlink()
    Image.new("L", (8, 6)).save(root / "masks/train/other.png")
    with pytest.raises(
        ValueError, match=r"of 4 images 2 have no mask \(.*1.png, .*2.png\), and of 3 masks 1 have no image"
    ):
        MaskFolder(str(root)).columns("train")
    write(root / "b")
    Image.new("L", (8, 6)).save(root / "b/images/train/0.jpg")
    with pytest.raises(ValueError, match=r"0.jpg and .*0.png of train differ in their endings alone"):
        MaskFolder(str(root / "b")).columns("train")


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("RGB", (8, 6)), "it is a picture of mode RGB"),
        (Image.new("L", (7, 6)), "the mask has 6x7 pixels, the image 6x8"),
        (Image.fromarray(np.full((6, 8), 300, np.uint16)), "it holds the value 300"),
        (Image.fromarray(np.full((6, 8), -1, np.int32)), "it holds the value -1"),
        (None, "Cannot read the mask"),
    ],
)
def test_masks_that_say_no_classes_are_refused(tmp_path, mask, said):
    root = write(tmp_path / "d")
    path = root / "masks/train/1.png"
    if mask is None:
        path.write_bytes(path.read_bytes()[:60])
    else:
        mask.save(path, format="TIFF")  # takes any values, whatever its name
    with pytest.raises(ValueError, match=said):
        MaskFolder(str(root)).columns("train")


def test_images_for_pretraining_need_no_masks(tmp_path):
    root = write(tmp_path / "d")
    (root / "images/unlabeled").mkdir()
    for k in range(3):
        Image.new("L", (8, 6)).save(root / f"images/unlabeled/{k}.png")
    data = MaskFolder(str(root))
    assert set(data.columns("pretrain")) == {"image"} and len(data.columns("pretrain")["image"]) == 3
    assert len(data.columns("train")["mask"]) == 4


@pytest.mark.parametrize(
    "settings", [{"ignore_index": 256}, {"classes": ()}, {"classes": [str(k) for k in range(256)]}]
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"data\.classes|ignore_index is a value"):
        MaskFolder("anywhere", **settings)


@pytest.mark.parametrize(
    ("names", "said"), [("sky\n\nroad\n", "1 is blank"), ("sky\nroad\nsky\n\n", "2 is 'sky' again")]
)
def test_names_that_would_move_or_join_classes_are_refused(tmp_path, names, said):
    root = write(tmp_path / "d")
    (root / "classes.txt").write_text(names)
    with pytest.raises(ValueError, match=rf"Cannot use .*classes\.txt: the name of class {said}"):
        MaskFolder(str(root)).columns("train")


def test_masks_in_which_no_pixel_counts_are_refused(tmp_path):
    root = write(tmp_path / "d")
    for file in root.glob("masks/*/*.png"):
        Image.new("L", (8, 6), 255).save(file)
    with pytest.raises(ValueError, match="all pixels of train have the value 255, which does not count"):
        MaskFolder(str(root)).columns("train")


def test_a_mask_of_another_shape_is_refused_before_both_are_cut(tmp_path):
    root = write(tmp_path / "d", size=(12, 6))
    half = np.zeros((3, 6), np.uint8)
    Image.fromarray(half).save(root / "masks/train/0.png")
    assert MaskFolder(str(root), image_size=4).columns("train")["mask"].shape == (4, 4, 4)
    Image.fromarray(half.T).save(root / "masks/train/1.png")
    with pytest.raises(ValueError, match="the mask has 6x3 pixels, the image 6x12, which is another shape"):
        MaskFolder(str(root), image_size=4).columns("train")
    lying = Image.new("L", (12, 6)).getexif()
    lying[274] = 6
    Image.new("L", (12, 6)).save(root / "images/train/1.png", exif=lying)
    assert MaskFolder(str(root), image_size=4).columns("train")["mask"].shape == (4, 4, 4)
