"""Pictures of a run: drawn on a schedule, kept in the run directory and sent to the loggers."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from ssl_lab.captions import CAPTION_FILE
from ssl_lab.data.base import DataModule
from ssl_lab.devices import keep_random_state
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.logging.dashboards import dashboards
from ssl_lab.engine.steps import check_count, evaluation_due, optimizer_steps_done
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.pictures.attention import image_attention, text_attention
from ssl_lab.pictures.features import feature_pictures
from ssl_lab.pictures.figures import on_white
from ssl_lab.pictures.generative import generative_pictures
from ssl_lab.pictures.render import as_markdown, render, sentences, token_texts
from ssl_lab.runs.directory import write_json
from ssl_lab.types import Batch, ImageGrid, MaskedText, Picture


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Settings for how often a run draws.

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
    """Saves pictures of a few validation samples and of generated ones, every few epochs and at the end.

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
        with keep_random_state(method.device):
            torch.manual_seed(0)
            batch = {name: column.to(method.device) for name, column in drawn_batch(self.datamodule).items()}
            for name, picture in self._pictures(method, batch).items():
                show(trainer, self.run_dir, name, picture, self.datamodule)

    def _pictures(self, method: Method, batch: Batch) -> dict[str, Picture]:
        found: dict[str, Picture | None] = {
            **generative_pictures(method, batch, self.datamodule),
            **method.pictures(batch),
        }
        if "document_ids" not in batch:  # features and attention belong to single texts
            features = method.capabilities()["features"]
            found |= feature_pictures(features, self.datamodule, device=method.device)
            found["attention"] = self._attention(method, batch)
        return {name: picture for name, picture in found.items() if picture is not None}

    def _attention(self, method: Method, batch: Batch) -> Picture | None:
        if "image" in batch:
            found: Picture | None = method.in_eval_mode(image_attention)(method.encoder, batch)
            return found
        pieces = partial(token_texts, datamodule=self.datamodule)
        return method.in_eval_mode(text_attention)(method.encoder, batch, pieces) if "input_ids" in batch else None


def drawn_batch(datamodule: DataModule) -> Batch:
    """Validation samples that are drawn, always the same: images from the whole split, which may be sorted by class."""
    batch = next(iter(datamodule.eval_dataloader("val", max_samples=datamodule.eval_batch_size)))
    if "image" not in batch:
        return next(iter(datamodule.eval_dataloader("val")))
    order = torch.randperm(len(batch["image"]), generator=torch.Generator().manual_seed(0))
    return {name: column[order.to(column.device)] for name, column in batch.items()}


def show(trainer: L.Trainer, run_dir: Path, name: str, picture: Picture, datamodule: DataModule) -> None:
    """Write a picture to ``pictures/<name>/step_<step>``, beside its caption, and send it to the dashboards."""
    step, folder = optimizer_steps_done(trainer), run_dir / "pictures" / name
    if picture.caption is not None:
        write_json(folder / CAPTION_FILE, asdict(picture.caption))
    if isinstance(picture, MaskedText):
        markdown = as_markdown(picture, datamodule)
        write_json(folder / f"step_{step:08d}.json", sentences(picture, datamodule))
        for board in dashboards(trainer):
            board.sentences(name, markdown, step - 1)
    else:
        pixels = render(picture) if isinstance(picture, ImageGrid) else picture.pixels
        write_atomically(folder / f"step_{step:08d}.png", lambda path: Image.fromarray(pixels).save(path, "PNG"))
        for board in dashboards(trainer):
            board.image(name, on_white(pixels), step - 1)
