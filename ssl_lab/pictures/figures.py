"""Figures as pixels."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssl_lab.captions import Caption
from ssl_lab.types import Drawing


def drawing(figure: Figure, caption: Caption, *, dpi: int = 100) -> Drawing:
    """A figure as a picture."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Drawing(pixels=np.asarray(canvas.buffer_rgba())[..., :3].copy(), caption=caption)
