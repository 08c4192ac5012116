"""Small image files of every odd kind, for the tests."""

import numpy as np
from PIL import Image

RED, BLUE = (200, 30, 30), (30, 30, 200)


def two_colours(size=(16, 16), *, left=RED, right=BLUE):
    """An image that is red on the left and blue on the right."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :] = left, right
    return Image.fromarray(pixels)


def grey(value, size=(8, 8)):
    return Image.new("L", size, value)


def write_classes(root, *, per_class=10, size=(8, 8), names=("cat", "dog")):
    """A folder for each class; the grey value tells class and number."""
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            grey(100 * k + i, size).save(root / name / f"{i}.png")
    return root


def write_captioned(root, *, num=20):
    """Red and blue images, their number in the green channel, and a table of them with two captions each."""
    rows = ["image\tpart\tcolour\tcaption"]
    (root / "pictures").mkdir(parents=True)
    for i in range(num):
        name, colour = f"pictures/{i}.png", ("red", "blue")[i % 2]
        Image.new("RGB", (8, 8), ((200, i, 30), (30, i, 200))[i % 2]).save(root / name)
        part = ("train", "train", "dev", "test", "other")[i % 5]
        rows += [f"{name}\t{part}\t{colour}\tA {colour} square {i}.", f"{name}\t{part}\t{colour}\t{colour} {i}"]
    (root / "captions.tsv").write_text("\n".join(rows) + "\n")
    return root / "captions.tsv"


def write_masked(root, *, size=(8, 6), splits=("train", "val", "test"), num=4, kind="P"):
    """Grey images whose pixels are ten times the number of their class; one class a column, the last not counted."""
    for split in splits:
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for k in range(num):
            values = (np.arange(size[0]) + k) % 3 * np.ones((size[1], 1))
            Image.fromarray((10 * values).astype(np.uint8)).save(root / "images" / split / f"{k}.png")
            values[:, -1] = 255
            mask = Image.fromarray(values.astype(np.uint8)).convert(kind) if kind == "RGB" else _to_mode(values, kind)
            mask.save(root / "masks" / split / f"{k}.png")
    return root


def _to_mode(values, kind):
    if kind == "I;16":
        return Image.fromarray(values.astype(np.uint16))
    mask = Image.fromarray(values.astype(np.uint8))
    if kind == "P":
        mask.putpalette([k * 7 % 256 for k in range(768)])
    return mask
