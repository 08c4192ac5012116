"""Pictures and masked sentences of a run, ready for the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ssl_lab.captions import Caption
from ssl_lab.methods.parts import captions as of_methods
from ssl_lab.pictures import captions as of_encoders
from ssl_lab.pretext import captions as of_views
from ssl_lab.report.animation import opened, small_webp

NUM_EARLIER = 5
"""Number of earlier steps shown beside the last one, evenly spread."""

_TOTAL_BYTES = 1_100_000  # of all PNGs of a page; base64 adds a third, and the page should stay under 2 MB
_THUMBNAIL_SIDE = 320
_LARGEST_SIDE = 1600
_ANIMATION_SIDE = 640
_ANIMATION_BYTES = 80_000  # of each, beside the PNGs
_SMALL_SIDE = 500  # pictures narrower than this are enlarged with sharp pixels

_CLOSING = (".", ",", ";", ":", "!", "?", ")", "]", "}", "%")  # follow the word before them without a space
_OPENING = ("(", "[", "{")
_CONTRACTED = ("s", "t", "re", "ve", "ll", "d", "m")  # after an apostrophe

_DRAWN_HERE = {**of_views.CAPTIONS, **of_methods.CAPTIONS, **of_encoders.CAPTIONS}
"""Captions of this package, for runs from before pictures had theirs beside them; others need no line."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture: its step, its ``data:`` address, its size, and whether it is enlarged with sharp pixels."""

    step: int
    address: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of one name: the last one large, some earlier ones small, in the order of training.

    Attributes:
        animation: The ``data:`` address of all of them as an animation; empty if their tiles change or there are too few.
    """

    title: str
    caption: str
    last: Shown
    earlier: tuple[Shown, ...]
    animation: str


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word or a piece of one, with the space before it.

    Attributes:
        space: Space before it, or empty.
        truth: The original text.
        guess: The model's guess where the text was hidden, else None.
        correct: Whether the guess is right; None where nothing was hidden.
    """

    space: str
    truth: str
    guess: str | None
    correct: bool | None


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Sentences of one step, and how many of their hidden words were predicted right."""

    step: int
    sentences: tuple[tuple[Word, ...], ...]
    num_hidden: int
    num_right: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The masked sentences of one name, of the last step and of some earlier ones."""

    title: str
    caption: str
    last: Prose
    earlier: tuple[Prose, ...]


def galleries(pictures: Mapping[str, Mapping[int, Path]], captions: Mapping[str, Caption]) -> list[Gallery]:
    """The pictures of each name in the order of their captions, sizes such that the page stays under 2 MB."""
    found = []
    budget = _TOTAL_BYTES // max(1, len(pictures))
    for name, caption in captions_of(pictures, captions).items():
        spread = {step: opened(pictures[name][step]) for step in _spread(list(pictures[name]))}
        images = {step: image for step, image in spread.items() if image is not None}
        if not images:
            continue
        *earlier, last = images
        small = budget // 3 // max(1, len(earlier))
        moving = None
        if caption.same_tiles:
            moving = small_webp(pictures[name], side=_ANIMATION_SIDE, max_bytes=_ANIMATION_BYTES)
        found.append(
            Gallery(
                title=caption.title,
                caption=caption.explanation,
                last=_shown(last, pictures[name][last], images[last], side=_LARGEST_SIDE, max_bytes=2 * budget // 3),
                earlier=tuple(
                    _shown(step, pictures[name][step], images[step], side=_THUMBNAIL_SIDE, max_bytes=small)
                    for step in earlier
                ),
                animation="" if moving is None else "data:image/webp;base64," + base64.b64encode(moving).decode(),
            )
        )
    return found


def readings(
    sentences: Mapping[str, Mapping[int, Sequence[Sequence[Mapping[str, Any]]]]], captions: Mapping[str, Caption]
) -> list[Reading]:
    """The masked sentences of each name as prose, in the order of their captions."""
    found = []
    for name, caption in captions_of(sentences, captions).items():
        *earlier, last = [_prose(step, sentences[name][step]) for step in _spread(list(sentences[name]))]
        found.append(Reading(title=caption.title, caption=caption.explanation, last=last, earlier=tuple(earlier)))
    return found


def captions_of(names: Iterable[str], captions: Mapping[str, Caption]) -> dict[str, Caption]:
    """Names of pictures with their captions, those that matter most first; without a caption the name is the title."""
    known = {**_DRAWN_HERE, **captions}
    found = {name: known.get(name) or Caption(title=name.replace("_", " ").capitalize()) for name in names}
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def _spread(steps: Sequence[int]) -> list[int]:
    """The first and the last step and evenly spread ones between, ``NUM_EARLIER + 1`` at most."""
    if len(steps) <= NUM_EARLIER + 1:
        return list(steps)
    return [steps[round(k * (len(steps) - 1) / NUM_EARLIER)] for k in range(NUM_EARLIER + 1)]


def _shown(step: int, path: Path, image: Image.Image, *, side: int, max_bytes: int) -> Shown:
    pixelated = image.width < _SMALL_SIDE
    content = path.read_bytes()
    if max(image.size) > side or len(content) > max_bytes:
        image = image.convert("RGB" if image.mode not in ("L", "RGBA") else image.mode)
        image.thumbnail((side, side))
        content = _png(image)
        if len(content) > max_bytes:
            content = _png(_with_256_colours(image))
        while len(content) > max_bytes and min(image.size) > 16:
            shrink = max(0.3, min(0.9, math.sqrt(max_bytes / len(content))))
            image.thumbnail((round(image.width * shrink), round(image.height * shrink)))
            content = _png(_with_256_colours(image))
    return Shown(
        step=step,
        address="data:image/png;base64," + base64.b64encode(content).decode(),
        width=image.width,
        height=image.height,
        pixelated=pixelated,
    )


def _with_256_colours(image: Image.Image) -> Image.Image:
    """A third of the size. The octree is as close as Pillow's default, median cut, and a hundred times faster."""
    return image.quantize(256, method=Image.Quantize.FASTOCTREE)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _prose(step: int, sentences: Sequence[Sequence[Mapping[str, Any]]]) -> Prose:
    words = tuple(tuple(_words(sentence)) for sentence in sentences)
    hidden = [word for sentence in words for word in sentence if word.guess is not None]
    return Prose(
        step=step,
        sentences=words,
        num_hidden=len(hidden),
        num_right=sum(bool(word.correct) for word in hidden),
    )


def _words(tokens: Sequence[Mapping[str, Any]]) -> list[Word]:
    """Tokens as prose: word pieces joined, no space before punctuation or between equal signs, special tokens left out."""
    words: list[Word] = []
    open_before = True  # whether the next word follows without a space
    for k, token in enumerate(tokens):
        text, guess = token["text"], token["guess"]
        if guess is None and text.startswith("[") and text.endswith("]") and text[1:-1].isupper():
            continue  # [CLS], [SEP], [PAD]
        piece = text.startswith("##")
        contracts = text in ("'", "’") and k + 1 < len(tokens) and tokens[k + 1]["text"] in _CONTRACTED
        repeated = k > 0 and text == tokens[k - 1]["text"] and not text.isalnum()  # as in **** and __
        joined = open_before or piece or contracts or repeated or text[:1] in _CLOSING
        if guess is not None and guess.startswith("##"):
            guess = guess.removeprefix("##") if piece else "-" + guess.removeprefix("##")
        truth = text.removeprefix("##") if piece else text
        words.append(Word(space="" if joined else " ", truth=truth, guess=guess, correct=token["correct"]))
        open_before = contracts or text in _OPENING
    return words
