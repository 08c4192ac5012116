"""Captions of pictures: declared where they are drawn, kept beside them, read where they are shown."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_lab.metrics import LATER

CAPTION_FILE = "caption.json"
"""Beside the pictures of one name in a run directory."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """The words of all pictures of one name.

    Attributes:
        title: Their heading.
        explanation: What is to be seen; empty for nothing more.
        order: Where they stand among the others.
        same_tiles: Whether their tiles stay the same from step to step, so that the steps make an animation.
    """

    title: str
    explanation: str = ""
    order: int = LATER
    same_tiles: bool = False
