"""Pictures as pixels, sentences as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ssl_lab.data.base import DataModule
from ssl_lab.pictures.figures import INK
from ssl_lab.types import ImageGrid, MaskedText

MIN_TILE = 48  # pixels a tile is enlarged to, so that 8x8 images can be seen
_FONT_SIZE = 13
_CLEAR = (*INK, 0)


def render(grid: ImageGrid) -> np.ndarray[Any, Any]:
    """The grid as one uint8 image (H, W, 4); small tiles are enlarged without smoothing.

    Names of rows stand before them, what colours mean below. All but the tiles is transparent, and words are grey, so
    that the picture suits light and dark pages.
    """
    images = grid.images.detach().float().cpu().clamp(0, 1)
    rows, columns, channels, height, width = images.shape
    if channels not in (1, 3):
        images = images.mean(2, keepdim=True)
    zoom = max(1, -(-MIN_TILE // height))
    gap = 2
    tiles = images.repeat_interleave(zoom, 3).repeat_interleave(zoom, 4).expand(-1, -1, 3, -1, -1)
    step_y, step_x = height * zoom + gap, width * zoom + gap
    canvas = torch.zeros(4, rows * step_y - gap, columns * step_x - gap)
    for r in range(rows):
        for c in range(columns):
            place = canvas[:, r * step_y : (r + 1) * step_y - gap, c * step_x : (c + 1) * step_x - gap]
            place[:3], place[3] = tiles[r, c], 1
    pixels = (canvas * 255).round().byte().permute(1, 2, 0).numpy()
    pixels = _with_names(pixels, grid.row_names, row_height=step_y) if grid.row_names else pixels
    return _with_legend(pixels, grid.legend) if grid.legend else pixels


def _with_names(pixels: np.ndarray[Any, Any], names: tuple[str, ...], *, row_height: int) -> np.ndarray[Any, Any]:
    font = ImageFont.load_default(_FONT_SIZE)
    margin = round(max(font.getlength(name) for name in names)) + 10
    height, width, _ = pixels.shape
    canvas = Image.new("RGBA", (margin + width, height), _CLEAR)
    canvas.paste(Image.fromarray(pixels), (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        draw.text((margin - 6, (row + 0.5) * row_height), name, fill=INK, font=font, anchor="rm")
    return np.asarray(canvas)


def _with_legend(pixels: np.ndarray[Any, Any], legend: Mapping[str, Sequence[float]]) -> np.ndarray[Any, Any]:
    font, line = ImageFont.load_default(_FONT_SIZE), _FONT_SIZE + 8
    height, width, _ = pixels.shape
    places, x, y = [], 0, height + 6
    for name in legend:
        needed = round(font.getlength(name)) + _FONT_SIZE + 20
        if x > 0 and x + needed > width:
            x, y = 0, y + line
        places.append((x, y))
        x += needed
    canvas = Image.new("RGBA", (width, y + line), _CLEAR)
    canvas.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for (name, colour), (x, y) in zip(legend.items(), places, strict=True):
        red, green, blue = (round(255 * share) for share in colour)
        draw.rectangle((x, y, x + _FONT_SIZE, y + _FONT_SIZE), fill=(red, green, blue))
        draw.text((x + _FONT_SIZE + 6, y + _FONT_SIZE / 2), name, fill=INK, font=font, anchor="lm")
    return np.asarray(canvas)


def sentences(picture: MaskedText, datamodule: Any) -> list[list[dict[str, Any]]]:
    """Masked sentences as tokens: the original text, and where it was masked the guess and whether it is right."""
    pad_id = datamodule.spec.pad_id
    lines = []
    for ids, labels, guesses in zip(picture.input_ids, picture.labels, picture.guesses, strict=True):
        masked = labels != -100
        original = torch.where(masked, labels, ids)
        tokens, guessed = (token_texts(row.tolist(), datamodule) for row in (original, guesses))
        lines.append(
            [
                {
                    "text": token,
                    "guess": guess if chosen else None,
                    "correct": token == guess if chosen else None,
                }
                for token, guess, chosen, i in zip(tokens, guessed, masked.tolist(), original.tolist(), strict=True)
                if i != pad_id
            ]
        )
    return lines


def token_texts(ids: list[int], datamodule: Any) -> list[str | None]:
    """Tokens as text, those that continue a word with ``##`` before them; None for ids that the tokenizer has not."""
    tokenizer, spec = datamodule.tokenizer, datamodule.spec
    continues, special = set(spec.continues_word), set(spec.special_ids)

    def piece(i: int, token: str | None) -> str | None:
        if token is None or not continues or i in special or token.startswith("##"):
            return token
        return ("##" if i in continues else "") + tokenizer.convert_tokens_to_string([token]).strip()

    return [piece(i, token) for i, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)]


def as_markdown(picture: MaskedText, datamodule: DataModule) -> str:
    """Masked sentences as markdown: right guesses bold, wrong ones struck out."""

    def word(token: dict[str, Any]) -> str:
        if token["guess"] is None:
            return str(token["text"])
        return f"**{token['text']}**" if token["correct"] else f"~~{token['guess']}~~ **{token['text']}**"

    return "\n\n".join(" ".join(map(word, line)).replace(" ##", "") for line in sentences(picture, datamodule))
