"""Figures as pixels that can be read on light and on dark pages."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from ssl_lab.captions import Caption
from ssl_lab.types import Drawing

INK = (117, 123, 130)
"""Red, green and blue of words and lines: a grey of contrast 4.1 on the light and on the dark page of a report."""


def drawing(figure: Figure, caption: Caption, *, dpi: int = 100) -> Drawing:
    """A figure as a picture without background, its words and axes in a grey that is legible on light and on dark.

    Colours of the data stay as they are.
    """
    red, green, blue = (value / 255 for value in INK)
    ink = (red, green, blue)
    figure.set_dpi(dpi)
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=ink)
        axes.spines[:].set_color(ink)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_color(ink)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Drawing(pixels=np.asarray(canvas.buffer_rgba()).copy(), caption=caption)


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W, 3) of a picture (H, W, 4) laid on white; one without transparency stays as it is."""
    if pixels.shape[2] == 3:
        return pixels
    opacity = pixels[..., 3:] / 255
    return (pixels[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
