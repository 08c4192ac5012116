"""Loggers beside a run; a failing logger never stops the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor

from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.logging import comet, mlflow, tensorboard, weights_and_biases  # noqa: F401 (register adapters)
from ssl_lab.engine.logging.adapters import Pixels, adapter_of, reason
from ssl_lab.engine.logging.loggers import last_step
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.types import Encoder


class Dashboard(Logger):
    """A logger that may fail: its first error is a warning, after which it gets no more data and the run continues.

    Pictures, sentences, features and files go through the logger's adapter (:mod:`ssl_lab.engine.logging.adapters`); a
    logger without one gets scalars and the configuration.

    Args:
        logger: Any of Lightning's loggers.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger
        self.adapter = adapter_of(logger)
        self.beginning: Beginning | None = None  # what is logged waits for it
        self._failed = False
        self._last: tuple[dict[str, float], int | None] | None = None

    @property
    def name(self) -> str | None:
        """Name of the logger."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """Its version."""
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        """Where it writes."""
        return self.logger.save_dir

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Scalars of a step, once: those of a checkpoint's step come before it is saved, and again from Lightning."""
        if (metrics, step) != self._last:
            self._last = dict(metrics), step
            self._try(self.logger.log_metrics, metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration."""
        self._try(self.adapter.settings, params)

    def save(self) -> None:
        """Write all complete rows."""
        self._try(self.logger.save)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """An image, uint8 (H, W, 3), as ``pictures/<name>``."""
        self._try(self.adapter.image, f"pictures/{name}", pixels, step)

    def sentences(self, name: str, markdown: str, step: int) -> None:
        """Sentences, one a paragraph, as ``pictures/<name>``."""
        self._try(self.adapter.sentences, f"pictures/{name}", markdown, step)

    def embedding(self, features: Tensor, labels: Sequence[str], images: Tensor | None, step: int) -> None:
        """Features (N, D) with a label each, and thumbnails (N, C, H, W) in [0, 1]."""
        self._try(self.adapter.embedding, features, labels, images, step)

    def forget_from(self, step: int, *, changed: bool) -> None:
        """Leave out what a process that was killed logged at this step and later.

        Trackers take nothing back. They keep the values of steps that come again, which are the same; of a run that is
        ``changed``, they go to a run of their own.
        """
        if changed:
            self.adapter.begin_anew()
        self._try(self.adapter.forget_from, step)

    def upload(self, run_dir: Path, encoder: Encoder) -> None:
        """The last checkpoint and the encoder's weights, as artifacts, if the logger was asked to."""
        self._try(self.adapter.upload, run_dir, encoder)

    def finish(self, *, failed: bool) -> None:
        """Write out what the logger still holds, and end its run, so that a sweep's next trial gets its own."""
        if self.beginning is None or self.beginning.done:
            self._try(partial(self.adapter.finish, failed=failed), at_last=True)

    def _try(self, action: Callable[..., Any], *args: Any, at_last: bool = False) -> None:
        if self.beginning is not None and not self.beginning.done:
            self.beginning.do(partial(self._try, action, *args))
            return
        if self._failed and not at_last:
            return
        try:
            action(*args)
        except Exception as error:
            if self._failed:
                return
            self._failed = True
            warnings.warn(
                f"{type(self.logger).__name__} failed ({reason(error)}) and gets no more data. The run continues; "
                "metrics.csv and pictures/ in the run directory stay complete.",
                stacklevel=1,
            )


class ForgetLaterSteps(Callback):
    """Of a resumed run, dashboards show each step once.

    Args:
        run_dir: The run directory.
        beginning: Knows how the run was changed.
    """

    def __init__(self, run_dir: Path, beginning: Beginning) -> None:
        self.run_dir = run_dir
        self.beginning = beginning

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the steps behind the checkpoint, which come again."""
        if not trainer.is_global_zero:
            return
        step = optimizer_steps_done(trainer)
        changed = bool(self.beginning.changes) and last_step(self.run_dir) >= step
        for board in dashboards(trainer):
            board.forget_from(step, changed=changed)


def guarded(loggers: Sequence[Logger]) -> list[Logger]:
    """Wrap loggers so that none of them can stop a run."""
    return [logger if isinstance(logger, Dashboard) else Dashboard(logger) for logger in loggers]


def dashboards(trainer: L.Trainer) -> list[Dashboard]:
    """Return the dashboards of a run."""
    return [logger for logger in trainer.loggers if isinstance(logger, Dashboard)]
