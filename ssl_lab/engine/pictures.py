"""Pictures of a run: drawn on a schedule, kept in the run directory and sent to the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ssl_lab.data.base import DataModule
from ssl_lab.data.store import write_atomically
from ssl_lab.engine.callbacks import evaluation_due, steps_done
from ssl_lab.engine.generative_pictures import generative_pictures
from ssl_lab.engine.run_dir import write_json
from ssl_lab.engine.sharded import gathered
from ssl_lab.evaluation.protocol import FeatureSet
from ssl_lab.methods.base import Method
from ssl_lab.types import ImageGrid, MaskedText, Picture

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
                self._draw(trainer, method)

    def _draw(self, trainer: L.Trainer, method: Any) -> None:
        devices = [method.device] if method.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            batch = next(iter(self.datamodule.eval_dataloader("val")))
            batch = {name: column.to(method.device) for name, column in batch.items()}
            pictures = {**generative_pictures(method, batch, self.datamodule), **method.pictures(batch)}
            for name, picture in pictures.items():
                save_picture(self.run_dir, name, steps_done(trainer), picture, self.datamodule)
                if isinstance(picture, ImageGrid):
                    log_image(trainer, name, render(picture))
                else:
                    log_sentences(trainer, name, _as_markdown(picture, self.datamodule))


def log_image(trainer: L.Trainer, name: str, image: np.ndarray[Any, Any]) -> None:
    """Send an image, uint8 (H, W, 3), to the dashboards under ``pictures/<name>``, at the last step done."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"pictures/{name}", image, steps_done(trainer) - 1, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(f"pictures/{name}", [Image.fromarray(image)])


def log_sentences(trainer: L.Trainer, name: str, markdown: str) -> None:
    """Send sentences, one a paragraph, to the dashboards under ``pictures/<name>``."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(f"pictures/{name}", markdown, steps_done(trainer) - 1)
        elif isinstance(logger, WandbLogger):
            rows = [[line] for line in markdown.split("\n\n")]
            logger.log_table(f"pictures/{name}", columns=["sentence"], data=rows)


def save_picture(run_dir: Path, name: str, step: int, picture: Picture, datamodule: DataModule) -> None:
    """Write one picture to ``pictures/<name>/step_<step>.png``, or ``.json`` for sentences."""
    stem = run_dir / "pictures" / name / f"step_{step:08d}"
    if isinstance(picture, ImageGrid):
        image = Image.fromarray(render(picture))
        write_atomically(stem.with_suffix(".png"), lambda path: image.save(path, "PNG"))
    else:
        write_json(stem.with_suffix(".json"), sentences(picture, datamodule))


def render(grid: ImageGrid) -> np.ndarray[Any, Any]:
    """The grid as one uint8 image (H, W, 3); small tiles are enlarged without smoothing, with a white gap between."""
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
    return (canvas * 255).round().byte().permute(1, 2, 0).numpy()


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
    """Tokens as text, those that go on with a word with ``##`` before them; None for ids that the tokenizer has not."""
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


def save_projection(
    run_dir: Path, step: int, features: FeatureSet, class_names: tuple[str, ...], *, max_points: int = 1500
) -> Path | None:
    """Scatter plot of the scored features in two dimensions (t-SNE after PCA), coloured by label.

    Returns:
        The file, or None if there are too few points for a map.
    """
    x, y = features.test_x[:max_points].cpu().numpy(), features.test_y[:max_points].cpu().numpy()
    if len(x) < 10:
        return None
    x = PCA(min(50, *x.shape), random_state=0).fit_transform(x)
    xy = TSNE(2, perplexity=min(30.0, len(x) / 4), init="pca", random_state=0).fit_transform(x)
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    for label in np.unique(y)[:20]:
        name = class_names[label] if label < len(class_names) else str(label)
        axes.scatter(
            xy[y == label, 0], xy[y == label, 1], s=9, alpha=0.8, label=name, color=f"C{label}" if label < 10 else None
        )
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    path = run_dir / "pictures" / "projection" / f"step_{step:08d}.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    return path
