"""The map of a run's features in the plane."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.engine.callbacks.pictures import show
from ssl_lab.engine.logging.dashboards import dashboards
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.evaluation.protocol import Protocol, features_of
from ssl_lab.methods.base import Method
from ssl_lab.pictures.features import projection, thumbnails

_MAX_EMBEDDED = 2000  # features that TensorBoard's projector gets


def draw_feature_map(
    trainer: L.Trainer, run_dir: Path, method: Method, datamodule: DataModule, protocols: Sequence[Protocol]
) -> None:
    """Draw the features of the test split, and send them to dashboards that draw their own.

    Nothing is drawn where several processes train or no protocol needs features. What goes wrong costs the picture and a
    warning, never the run.
    """
    if distributed.world_size() > 1 or not any(protocol.needs == "features" for protocol in protocols):
        return
    try:
        _draw(trainer, run_dir, method, datamodule)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"The map of the features could not be drawn ({reason}).", stacklevel=1)


def _draw(trainer: L.Trainer, run_dir: Path, method: Method, datamodule: DataModule) -> None:
    x, y = features_of(method.features, datamodule, "test", device=method.device)
    names = datamodule.spec.class_names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn announces changed defaults of t-SNE
        picture = projection(x, y, names)
    if picture is not None:
        show(trainer, run_dir, "projection", picture, datamodule)
        x, y = x[:_MAX_EMBEDDED], y[:_MAX_EMBEDDED]
        image = datamodule.columns("test").get("image")
        small = thumbnails(torch.as_tensor(image[np.arange(len(x))])) if image is not None else None
        labels = ["no label" if k < 0 else names[k] if k < len(names) else str(k) for k in y.tolist()]
        for board in dashboards(trainer):
            board.embedding(x.cpu(), labels, small, optimizer_steps_done(trainer) - 1)
