"""Pictures of a run: drawn on a schedule, kept in the run directory and sent to the loggers."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw, ImageFont

from ssl_lab.data.base import DataModule
from ssl_lab.engine.attention_pictures import image_attention, text_attention
from ssl_lab.engine.callbacks import evaluation_due, optimizer_steps_done
from ssl_lab.engine.dashboards import dashboards
from ssl_lab.engine.feature_pictures import feature_pictures
from ssl_lab.engine.generative_pictures import generative_pictures
from ssl_lab.engine.run_dir import write_json
from ssl_lab.engine.sharded import gathered
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch, ImageGrid, MaskedText

MIN_TILE = 48  # pixels a tile is enlarged to, so that 8x8 images can be seen


class PicturesDuringTraining(Callback):
    """Saves pictures of a few validation samples and of what the method generates, every few epochs and at the end.

    Args:
        run_dir: The run directory; pictures go to ``pictures/<name>/step_<step>``.
        datamodule: Where the samples come from.
        every_n_epochs: Epochs between two rounds.
    """

    def __init__(self, run_dir: Path, datamodule: DataModule, *, every_n_epochs: int) -> None:
        self.run_dir = run_dir
        self.datamodule = datamodule
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw if it is time."""
        assert isinstance(pl_module, Method)
        if evaluation_due(trainer, self.every_n_epochs):
            method = gathered(trainer, pl_module)
            if trainer.is_global_zero:
                self.draw(trainer, method)

    def draw(self, trainer: L.Trainer, method: Any) -> None:
        """Draw now; what goes wrong here, such as a full disk, costs the pictures and a warning, never the run."""
        try:
            self._draw(trainer, method)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"Pictures of step {optimizer_steps_done(trainer)} could not be drawn ({reason}).", stacklevel=1
            )

    def _draw(self, trainer: L.Trainer, method: Any) -> None:
        devices = [method.device] if method.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            batch = next(iter(self.datamodule.eval_dataloader("val")))
            batch = {name: column.to(method.device) for name, column in batch.items()}
            for name, picture in self._pictures(method, batch).items():
                self._show(trainer, name, picture)

    def _pictures(self, method: Method, batch: Batch) -> dict[str, Any]:
        found = {**generative_pictures(method, batch, self.datamodule), **method.pictures(batch)}
        if "document_ids" not in batch:  # features and attention belong to single texts
            features = method.capabilities()["features"]
            found |= feature_pictures(features, self.datamodule, device=method.device)
            found["attention"] = self._attention(method, batch)
        return {name: picture for name, picture in found.items() if picture is not None}

    def _attention(self, method: Method, batch: Batch) -> Any:
        if "image" in batch:
            return method.in_eval_mode(image_attention)(method.encoder, batch)
        pieces = partial(_pieces, datamodule=self.datamodule)
        return method.in_eval_mode(text_attention)(method.encoder, batch, pieces) if "input_ids" in batch else None

    def _show(self, trainer: L.Trainer, name: str, picture: Any) -> None:
        if isinstance(picture, MaskedText):
            step = optimizer_steps_done(trainer)
            markdown = _as_markdown(picture, self.datamodule)
            save_sentences(self.run_dir, name, step, picture, self.datamodule)
            for board in dashboards(trainer):
                board.sentences(name, markdown, step - 1)
        else:
            show_image(trainer, self.run_dir, name, render(picture) if isinstance(picture, ImageGrid) else picture)


def show_image(trainer: L.Trainer, run_dir: Path, name: str, pixels: np.ndarray[Any, Any]) -> None:
    """Write an image, uint8 (H, W, 3), to ``pictures/<name>/step_<step>.png``, and send it to the dashboards."""
    step = optimizer_steps_done(trainer)
    path = run_dir / "pictures" / name / f"step_{step:08d}.png"
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, "PNG"))
    for board in dashboards(trainer):
        board.image(name, pixels, step - 1)


def save_sentences(run_dir: Path, name: str, step: int, picture: MaskedText, datamodule: DataModule) -> None:
    """Write sentences to ``pictures/<name>/step_<step>.json``."""
    write_json(run_dir / "pictures" / name / f"step_{step:08d}.json", sentences(picture, datamodule))


def render(grid: ImageGrid) -> np.ndarray[Any, Any]:
    """The grid as one uint8 image (H, W, 3); small tiles are enlarged without smoothing, with a white gap between.

    Names of rows stand before them.
    """
    images = grid.images.detach().float().cpu().clamp(0, 1)
    rows, columns, channels, height, width = images.shape
    if channels not in (1, 3):
        images = images.mean(2, keepdim=True)
    zoom = max(1, -(-MIN_TILE // height))
    gap = 2
    tiles = images.repeat_interleave(zoom, 3).repeat_interleave(zoom, 4).expand(-1, -1, 3, -1, -1)
    step_y, step_x = height * zoom + gap, width * zoom + gap
    canvas = torch.ones(3, rows * step_y - gap, columns * step_x - gap)
    for r in range(rows):
        for c in range(columns):
            canvas[:, r * step_y : (r + 1) * step_y - gap, c * step_x : (c + 1) * step_x - gap] = tiles[r, c]
    pixels = (canvas * 255).round().byte().permute(1, 2, 0).numpy()
    return _with_names(pixels, grid.row_names, row_height=step_y) if grid.row_names else pixels


def _with_names(
    pixels: np.ndarray[Any, Any], names: tuple[str, ...], *, row_height: int, font_size: int = 13
) -> np.ndarray[Any, Any]:
    font = ImageFont.load_default(font_size)
    margin = round(max(font.getlength(name) for name in names)) + 10
    height, width, _ = pixels.shape
    canvas = Image.new("RGB", (margin + width, height), "white")
    canvas.paste(Image.fromarray(pixels), (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        draw.text((margin - 6, (row + 0.5) * row_height), name, fill="black", font=font, anchor="rm")
    return np.asarray(canvas)


def sentences(picture: MaskedText, datamodule: Any) -> list[list[dict[str, Any]]]:
    """Masked sentences as tokens: the original text, and where it was masked the guess and whether it is right."""
    pad_id = datamodule.spec.pad_id
    lines = []
    for ids, labels, guesses in zip(picture.input_ids, picture.labels, picture.guesses, strict=True):
        masked = labels != -100
        original = torch.where(masked, labels, ids)
        tokens, guessed = (_pieces(row.tolist(), datamodule) for row in (original, guesses))
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


def _pieces(ids: list[int], datamodule: Any) -> list[str | None]:
    """Tokens as text, those that continue a word with ``##`` before them; None for ids that the tokenizer has not."""
    tokenizer, spec = datamodule.tokenizer, datamodule.spec
    continues, special = set(spec.continues_word), set(spec.special_ids)

    def piece(i: int, token: str | None) -> str | None:
        if token is None or not continues or i in special or token.startswith("##"):
            return token
        return ("##" if i in continues else "") + tokenizer.convert_tokens_to_string([token]).strip()

    return [piece(i, token) for i, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)]


def _as_markdown(picture: MaskedText, datamodule: DataModule) -> str:
    def word(token: dict[str, Any]) -> str:
        if token["guess"] is None:
            return str(token["text"])
        return f"**{token['text']}**" if token["correct"] else f"~~{token['guess']}~~ **{token['text']}**"

    return "\n\n".join(" ".join(map(word, line)).replace(" ##", "") for line in sentences(picture, datamodule))
