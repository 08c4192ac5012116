"""Pictures of a run: drawn on a schedule, kept in the run directory and sent to the loggers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from ssl_lab.data.base import DataModule
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.logging.dashboards import dashboards
from ssl_lab.engine.steps import check_count, evaluation_due, optimizer_steps_done
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.pictures.attention import image_attention, text_attention
from ssl_lab.pictures.features import feature_pictures
from ssl_lab.pictures.generative import generative_pictures
from ssl_lab.pictures.render import as_markdown, render, sentences, token_texts
from ssl_lab.runs.directory import write_json
from ssl_lab.types import Batch, ImageGrid, MaskedText


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How often a run draws.

    Attributes:
        every_n_epochs: Epochs between two rounds of pictures; None for no pictures, not at the end either.

    Raises:
        ValueError: If it is below 1.
    """

    every_n_epochs: int | None = 10

    def __post_init__(self) -> None:
        """Check the number."""
        check_count("pictures_every_n_epochs", self.every_n_epochs, none="no pictures")


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
        pieces = partial(token_texts, datamodule=self.datamodule)
        return method.in_eval_mode(text_attention)(method.encoder, batch, pieces) if "input_ids" in batch else None

    def _show(self, trainer: L.Trainer, name: str, picture: Any) -> None:
        if isinstance(picture, MaskedText):
            step = optimizer_steps_done(trainer)
            markdown = as_markdown(picture, self.datamodule)
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
