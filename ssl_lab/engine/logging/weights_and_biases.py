"""Weights & Biases: online if a key is known and the service answers, else offline."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ssl_lab.encoders.lora import without_adapters
from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of, reason
from ssl_lab.engine.logging.kept_id import KeptId, short_name
from ssl_lab.limited import read_text
from ssl_lab.runs.directory import LAST_CHECKPOINT
from ssl_lab.types import Encoder

_TIMEOUT_SEC = 30.0  # for W&B to begin, and to upload the rest at the end


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
        self.kept = KeptId(run_dir, "wandb")
        super().__init__(
            name=short_name(run_dir),
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
            self._take_id()
            if not self._offline:
                try:
                    return super().experiment
                except Exception as error:
                    warnings.warn(
                        f"W&B cannot be reached ({reason(error)}) and goes offline. Upload later with: {self._sync}",
                        stacklevel=1,
                    )
                    self._offline = True
                    self._wandb_init["mode"] = "offline"
                    self.kept.forget()  # it is taken until the process ends
                    self._take_id()
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One row for each step; W&B leaves out those that it has already."""
        self.experiment.log(dict(metrics) if step is None else {**metrics, "trainer/global_step": step}, step=step)

    def _take_id(self) -> None:
        """The kept id or a new one; an agent's, if there is one."""
        if "WANDB_RUN_ID" not in os.environ:
            id = self.kept.read() or secrets.token_hex(4)
            self.kept.keep(id)
            self._wandb_init["id"] = id

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


class WandbAdapter(Adapter):
    """Pictures and tables for any logger of Lightning's for W&B; artifacts and runs begun anew for ours."""

    logger: WandbLogger

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Log an image."""
        self.logger.log_image(key, [Image.fromarray(pixels)], step)

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Log a table with a row for each sentence."""
        rows = [[line] for line in markdown.split("\n\n")]
        self.logger.log_table(key, columns=["sentence"], data=rows, step=step)

    def begin_anew(self) -> None:
        """Continue in another W&B run, whose first row is still to come."""
        if isinstance(self.logger, WeightsAndBiases):
            self.logger.kept.forget()

    def upload(self, run_dir: Path, encoder: Encoder) -> None:
        """Upload artifacts, if asked to."""
        if isinstance(self.logger, WeightsAndBiases) and self.logger.artifacts:
            self.logger.upload(run_dir, encoder)

    def finish(self, *, failed: bool) -> None:
        """End the W&B run of the process.

        Raises:
            TimeoutError: If not all was uploaded in time.
        """
        import wandb

        if wandb.run is not None:
            folder = Path(wandb.run.dir).parent
            try:
                wandb.finish(exit_code=int(failed))
            except TimeoutError:
                raise TimeoutError(f"not all is uploaded; do it later with: wandb sync {folder}") from None


adapter_of.register(WandbLogger, WandbAdapter)


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
