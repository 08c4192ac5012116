"""Grids as pixels: gaps, names of rows, and what colours mean."""

import numpy as np
import torch

from ssl_lab.pictures.figures import INK, on_white
from ssl_lab.pictures.render import render
from ssl_lab.types import ImageGrid


def test_a_legend_stands_below_the_images_in_as_many_lines_as_it_needs():
    images = torch.zeros(1, 2, 3, 48, 48)
    plain = render(ImageGrid(images=images))
    legend = {f"class {k}": (k / 5, 0.0, 1.0) for k in range(6)}
    drawn = render(ImageGrid(images=images, legend=legend))
    assert np.array_equal(drawn[:48], plain) and drawn.shape[1] == plain.shape[1]
    colours = {tuple(colour) for colour in drawn[48:].reshape(-1, 4).tolist()}
    assert {(51 * k, 0, 255, 255) for k in range(6)} <= colours
    assert len(drawn) > len(render(ImageGrid(images=images, legend={"a": (1, 0, 0)})))


def test_only_tiles_are_opaque_and_words_are_neither_black_nor_white():
    grid = ImageGrid(images=torch.zeros(2, 2, 1, 48, 48), row_names=("image", "head 1"))
    drawn = render(grid)
    margin = drawn.shape[1] - 98
    assert (drawn[:48, margin : margin + 48] == (0, 0, 0, 255)).all() and (drawn[48:50, :, 3] < 255).all()
    words = drawn[:, :margin]
    assert words[..., 3].min() == 0 and words[..., 3].max() > 200
    assert (words[words[..., 3] > 0][:, :3] == INK).all()
    assert (on_white(drawn)[48:50, margin:] == 255).all() and on_white(drawn).shape[2] == 3
