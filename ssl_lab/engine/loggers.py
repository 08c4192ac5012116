"""Where scalars go: always to metrics.csv, on request to Weights & Biases."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.data.store import write_atomically


class MetricsFile(Logger):
    """One row per logged step in ``run_dir/metrics.csv``, a column per metric, empty where nothing was logged.

    Rows are appended as steps are completed. When a run is resumed, rows after the first step logged again are
    replaced, and the row of that step is gone on with.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._row_start: int | None = None  # where the row lies in the file, if it is there already

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one file per run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the configuration is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add metrics to the row of a step."""
        step = step if step is not None else int(self._row.get("step", 0))
        if self._row and self._row["step"] != step:
            self._finish_row()
        if not self._columns:
            self._open(step)
        self._row = {**self._row, "step": step, **metrics}

    @rank_zero_only
    def save(self) -> None:
        """Write what is complete; a row is complete when the next step is logged or the run ends."""

    @rank_zero_only
    def flush(self) -> None:
        """Write the row of the last step as it is; what is still logged at that step is added to it."""
        self._write_row()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last row."""
        self._finish_row()

    def _open(self, first_step: int) -> None:
        self._columns = ["step", "epoch"]
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            whole, end, _ = self.path.read_text().rpartition("\n")  # a process that was killed may leave half a row
            reader = csv.DictReader(io.StringIO(whole + end, newline=""))
            rows = [row for row in reader if row.get("step") and int(row["step"]) <= first_step]
            self._columns = list(reader.fieldnames or self._columns)
        self._rewrite(rows)
        if rows and int(rows[-1]["step"]) == first_step:
            self._row = {name: value for name, value in rows[-1].items() if value}
            self._row_start = self.path.stat().st_size - len(self._line(rows[-1]))

    def _finish_row(self) -> None:
        self._write_row()
        self._row, self._row_start = {}, None

    def _write_row(self) -> None:
        """Write the row at the end of the file, in one go over what was there of it: a kill may come at any moment."""
        if not self._row:
            return
        new = [name for name in self._row if name not in self._columns]
        if new:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns += new
            self._rewrite([*(rows if self._row_start is None else rows[:-1]), self._row])
            self._row_start = self.path.stat().st_size - len(self._line(self._row))
            return
        if self._row_start is None:
            self._row_start = self.path.stat().st_size
        with self.path.open("r+b") as file:
            file.seek(self._row_start)
            file.write(self._line(self._row))
            file.truncate()

    def _line(self, row: dict[str, Any]) -> bytes:
        line = io.StringIO()
        csv.DictWriter(line, self._columns).writerow(row)
        return line.getvalue().encode()

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)


def close_loggers(trainer: L.Trainer, *, failed: bool = False) -> None:
    """Write out what the dashboards still hold, and end this run's W&B run, so that a sweep's next trial gets its own."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.finalize("failed" if failed else "success")
        elif isinstance(logger, WandbLogger):
            import wandb

            if wandb.run is not None:
                wandb.finish(exit_code=int(failed))


def wandb_logger(*, run_dir: str, project: str, group: str | None = None, tags: list[str] | None = None) -> WandbLogger:
    """Weights & Biases in the run directory: online if a key is known, else offline; never asks a question."""
    import wandb

    offline = os.environ.get("WANDB_MODE") == "offline" or not (os.environ.get("WANDB_API_KEY") or _has_netrc_key())
    if offline:
        rank_zero_only(print)(
            f"W&B is offline: no login found. Upload later with: wandb sync {run_dir}/wandb/offline-run-*"
        )
    return WandbLogger(
        save_dir=run_dir,
        project=project,
        offline=offline,
        group=group,
        tags=tags or [],
        settings=wandb.Settings(silent=True),
    )


def _has_netrc_key() -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return path.is_file() and "api.wandb.ai" in path.read_text()
