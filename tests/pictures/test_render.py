"""Grids as pixels: gaps, names of rows, and what colours mean."""

import numpy as np
import torch

from ssl_lab.pictures.render import render
from ssl_lab.types import ImageGrid


def test_a_legend_stands_below_the_images_in_as_many_lines_as_it_needs():
    images = torch.zeros(1, 2, 3, 48, 48)
    plain = render(ImageGrid(images=images))
    legend = {f"class {k}": (k / 5, 0.0, 1.0) for k in range(6)}
    drawn = render(ImageGrid(images=images, legend=legend))
    assert np.array_equal(drawn[:48], plain) and drawn.shape[1] == plain.shape[1]
    colours = {tuple(colour) for colour in drawn[48:].reshape(-1, 3).tolist()}
    assert {(51 * k, 0, 255) for k in range(6)} <= colours
    assert len(drawn) > len(render(ImageGrid(images=images, legend={"a": (1, 0, 0)})))
