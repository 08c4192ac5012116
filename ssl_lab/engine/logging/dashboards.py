"""TensorBoard, Weights & Biases and other loggers beside a run, none of which may stop it."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import lightning as L
import numpy as np
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch import Tensor

from ssl_lab.encoders.lora import without_adapters
from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.logging.loggers import last_step
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.limited import read_text
from ssl_lab.runs.directory import LAST_CHECKPOINT
from ssl_lab.types import Encoder

_TIMEOUT_SEC = 30.0  # for W&B to begin, and to upload the rest at the end


class Dashboard(Logger):
    """A logger that may fail: its first error is a warning, after which it gets nothing more and the run continues.

    Pictures, sentences, features and files reach TensorBoard and Weights & Biases; other loggers get scalars alone.

    Args:
        logger: Any of Lightning's loggers.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger
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
        self._try(self.logger.log_hyperparams, params)

    def save(self) -> None:
        """Write what is complete."""
        self._try(self.logger.save)

    def image(self, name: str, image: np.ndarray[Any, Any], step: int) -> None:
        """An image, uint8 (H, W, 3), as ``pictures/<name>``."""
        key = f"pictures/{name}"
        if isinstance(self.logger, TensorBoardLogger):
            self._try(lambda board: board.experiment.add_image(key, image, step, dataformats="HWC"), self.logger)
        elif isinstance(self.logger, WandbLogger):
            self._try(self.logger.log_image, key, [Image.fromarray(image)], step)

    def sentences(self, name: str, markdown: str, step: int) -> None:
        """Sentences, one a paragraph, as ``pictures/<name>``."""
        key = f"pictures/{name}"
        if isinstance(self.logger, TensorBoardLogger):
            self._try(lambda board: board.experiment.add_text(key, markdown, step), self.logger)
        elif isinstance(self.logger, WandbLogger):
            rows = [[line] for line in markdown.split("\n\n")]
            self._try(partial(self.logger.log_table, key, columns=["sentence"], data=rows, step=step))

    def embedding(self, features: Tensor, labels: Sequence[str], images: Tensor | None, step: int) -> None:
        """Features (N, D) with a label each, and thumbnails (N, C, H, W) in [0, 1], for TensorBoard's projector."""
        if isinstance(self.logger, TensorBoardLogger):
            given = {"metadata": list(labels), "label_img": images, "tag": "features", "global_step": step}
            self._try(lambda board: board.experiment.add_embedding(features, **given), self.logger)

    def forget_from(self, step: int, *, changed: bool) -> None:
        """Have TensorBoard leave out what a process that was killed logged at this step and later.

        W&B takes nothing back. It keeps the values of steps that come again, which are the same; of a run that is
        ``changed``, they go to a W&B run of their own.
        """
        if isinstance(self.logger, TensorBoardLogger):
            self._try(lambda board: _forget_from(board.experiment, step), self.logger)
        elif isinstance(self.logger, WeightsAndBiases) and changed:
            self.logger.begin_anew()

    def upload(self, run_dir: Path, encoder: Encoder) -> None:
        """The last checkpoint and the encoder's weights, as artifacts, if the logger was asked to."""
        if isinstance(self.logger, WeightsAndBiases) and self.logger.artifacts:
            self._try(self.logger.upload, run_dir, encoder)

    def finish(self, *, failed: bool) -> None:
        """Write out what the logger still holds, and end the W&B run, so that a sweep's next trial gets its own."""
        if self.beginning is not None and not self.beginning.done:
            return
        if isinstance(self.logger, WandbLogger):
            self._try(_finish_wandb, failed, at_last=True)
        else:
            self._try(self.logger.finalize, "failed" if failed else "success", at_last=True)

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
                f"{type(self.logger).__name__} failed ({_reason(error)}) and gets no more data. The run continues; "
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
    """Loggers none of which can stop a run."""
    return [logger if isinstance(logger, Dashboard) else Dashboard(logger) for logger in loggers]


def dashboards(trainer: L.Trainer) -> list[Dashboard]:
    """Return the dashboards of a run."""
    return [logger for logger in trainer.loggers if isinstance(logger, Dashboard)]


class WeightsAndBiases(WandbLogger):
    """Weights & Biases in the run directory: online if a key is known and the service answers, else offline.

    It never asks a question, and waits for the service no longer than half a minute at the start and at the end
    (``SSL_LAB_WANDB_TIMEOUT_SEC``); what is not uploaded by then stays in the run directory for ``wandb sync``. A run that is
    resumed keeps its id. Its rows have the run's own steps, of which W&B takes each once.

    Args:
        run_dir: The run directory.
        project: Name of the project.
        group: Name under which runs are grouped.
        tags: Tags of the run.
        artifacts: Upload the last checkpoint and the encoder's weights when the run has finished.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        project: str,
        group: str | None = None,
        tags: list[str] | None = None,
        artifacts: bool = False,
    ) -> None:
        _refuse_settings_of_folder()
        import wandb

        timeout = float(os.environ.get("SSL_LAB_WANDB_TIMEOUT_SEC", _TIMEOUT_SEC))
        self.run_dir = Path(run_dir)
        self.artifacts = artifacts
        self._begins_anew = False
        super().__init__(
            name="/".join(self.run_dir.absolute().parts[-2:]),
            save_dir=run_dir,
            project=project,
            offline=os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not _has_key(),
            group=group,
            tags=tags or [],
            settings=wandb.Settings(
                silent=True, init_timeout=timeout, finish_timeout=timeout, finish_timeout_raises=True, console="off"
            ),
        )
        self._wandb_init.pop("anonymous", None)  # of which W&B says that it has no effect
        if self._offline:
            rank_zero_only(print)(f"W&B is offline. Upload later with: {self._sync}")

    @property
    def _sync(self) -> str:
        return f"wandb sync {self.run_dir}/wandb/offline-run-*"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; started offline if the service cannot be reached."""
        if self._experiment is None:
            self._take_id(new=self._begins_anew)
            if not self._offline:
                try:
                    return super().experiment
                except Exception as error:
                    warnings.warn(
                        f"W&B cannot be reached ({_reason(error)}) and goes offline. Upload later with: {self._sync}",
                        stacklevel=1,
                    )
                    self._offline = True
                    self._wandb_init["mode"] = "offline"
                    self._take_id(new=True)  # the other one is taken until the process ends
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One row for each step; W&B leaves out those that it has already."""
        self.experiment.log(dict(metrics) if step is None else {**metrics, "trainer/global_step": step}, step=step)

    def begin_anew(self) -> None:
        """Go on in another W&B run, whose first row is still to come."""
        self._begins_anew = True

    def _take_id(self, *, new: bool = False) -> None:
        """The id that ``wandb/id.txt`` holds, and on request or at first a new one; an agent's, if there is one."""
        if "WANDB_RUN_ID" in os.environ:
            return
        path = self.run_dir / "wandb" / "id.txt"
        if new or not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(secrets.token_hex(4))
        self._wandb_init["id"] = read_text(path)

    def upload(self, run_dir: Path, encoder: Encoder) -> None:
        """The last checkpoint and the encoder's weights, as artifacts of type ``model``."""
        import wandb

        run = self.experiment
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "encoder.pt"
            weights = without_adapters(encoder).state_dict()
            torch.save({name: value.cpu() for name, value in weights.items()}, path)
            for name, file in {"encoder": path, "checkpoint": run_dir / LAST_CHECKPOINT}.items():
                artifact = wandb.Artifact(f"{name}-{run.id}", type="model")
                artifact.add_file(str(file))  # a copy of it
                run.log_artifact(artifact)


def _forget_from(writer: Any, step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    file = writer.file_writer  # the same two events that SummaryWriter writes for purge_step=
    file.add_event(Event(step=step, file_version="brain.Event:2"))
    file.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


def _finish_wandb(failed: bool) -> None:
    import wandb

    if wandb.run is not None:
        folder = Path(wandb.run.dir).parent
        try:
            wandb.finish(exit_code=int(failed))
        except TimeoutError:
            raise TimeoutError(f"not all is uploaded; do it later with: wandb sync {folder}") from None


def _refuse_settings_of_folder() -> None:
    """Refuse settings of W&B in the working folder, which could send the user's key to another server.

    Raises:
        ValueError: If there are any beside a project and its owner.
    """
    for path in (Path("wandb/settings"), Path(".wandb/settings")):
        try:
            pairs = [line.partition("=")[::2] for line in read_text(path).splitlines() if "=" in line]
        except FileNotFoundError:
            continue
        for key, value in ((key.strip(), value.strip()) for key, value in pairs):
            if key not in ("project", "entity") and not (key == "base_url" and value.rstrip("/") == _server()):
                raise ValueError(
                    f"{path} of this folder sets {key}, and W&B would send your key and results where it says. Remove the "
                    f"line, and say it yourself if you want it: WANDB_{key.upper()}=... in front of the command."
                )


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = urlparse(_server()).hostname or ""
    return path.is_file() and host in path.read_text()


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:  # TensorBoard's logger calls a full disk a value that it does not take
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
