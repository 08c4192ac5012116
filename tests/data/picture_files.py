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
