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
