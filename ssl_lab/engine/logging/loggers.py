"""Where scalars go: always to metrics.csv, in the run directory."""

from __future__ import annotations

import csv
import io
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.engine.beginning import Beginning
from ssl_lab.files import write_atomically
from ssl_lab.limited import MAX_TABLE_BYTES, UnreadableFileError, read_bytes, read_table


class MetricsFile(Logger):
    """One row per logged step in ``run_dir/metrics.csv``, a column per metric, empty where nothing was logged.

    Rows are appended as steps are completed; the file is written anew only when a metric comes up for the first time. Rows
    that cannot be written, such as on a full disk, wait in memory. When a run is resumed, rows after the first step logged
    again are replaced, and the row of that step is continued.

    Args:
        run_dir: The run directory.
        beginning: Rows wait for it; without it they are written at once.
    """

    def __init__(self, run_dir: Path, beginning: Beginning | None = None) -> None:
        super().__init__()
        self._beginning = beginning or Beginning(run_dir)
        self.path = run_dir / "metrics.csv"
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._row_start: int | None = None  # where the row lies in the file, if it is there already
        self._waiting: list[dict[str, Any]] = []  # finished rows that could not be written
        self._told = False  # that they could not

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
        self._beginning.do(partial(self._log, dict(metrics), step))

    def _log(self, metrics: dict[str, float], step: int | None) -> None:
        step = step if step is not None else int(self._row.get("step", 0))
        if self._row and self._row["step"] != step:
            self._finish_row()
        if not self._columns:
            self._open(step)
        self._row = {**self._row, "step": step, **metrics}

    @rank_zero_only
    def save(self) -> None:
        """Write all complete rows; a row is complete when the next step is logged or the run ends."""

    @rank_zero_only
    def flush(self) -> None:
        """Write the row of the last step as it is; later values of that step are added to it."""
        if self._row:
            self._write_row()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last row."""
        self._finish_row()

    def _open(self, first_step: int) -> None:
        self._columns = ["step", "epoch"]
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            text = read_bytes(self.path, max_bytes=MAX_TABLE_BYTES).decode(errors="replace")
            whole, end, _ = text.rpartition("\n")  # a process that was killed may leave half a row
            reader = csv.DictReader(io.StringIO(whole + end, newline=""))
            # A power cut may leave a block of the file empty.
            sound = [row for row in reader if (row.get("step") or "").isdecimal() and None not in row]
            rows = [row for row in sound if int(row["step"]) <= first_step]
            self._columns = list(reader.fieldnames or self._columns)
        self._rewrite(rows)
        if rows and int(rows[-1]["step"]) == first_step:
            self._row = {name: value for name, value in rows[-1].items() if value}
            self._row_start = self.path.stat().st_size - len(self._line(rows[-1]))

    def _finish_row(self) -> None:
        if self._row and not self._write_row():
            self._waiting.append(self._row)
        else:
            self._row_start = None
        self._row = {}

    def _write_row(self) -> bool:
        """Write the row at the end of the file, behind those that wait, and whether that went well.

        In one go over what was there of it: a kill may come at any moment.
        """
        try:
            self._write()
        except OSError as error:
            if not self._told:
                warnings.warn(f"{self.path} cannot be written ({error}); its rows wait for room there.", stacklevel=1)
            self._told = True
            return False
        self._waiting, self._told = [], False
        return True

    def _write(self) -> None:
        if self._row_start is None:
            self._row_start = self.path.stat().st_size
        before, rows = self._columns, [*self._waiting, self._row]
        self._columns = list(dict.fromkeys([*before, *(name for row in rows for name in row)]))
        if self._columns != before:
            try:
                finished = self.path.read_bytes()[: self._row_start].decode()
                self._rewrite([*csv.DictReader(io.StringIO(finished, newline="")), *rows])
            except OSError:
                self._columns = before
                raise
            self._row_start = self.path.stat().st_size - len(self._line(self._row))
            return
        waiting = b"".join(map(self._line, self._waiting))
        with self.path.open("r+b") as file:
            file.seek(self._row_start)
            file.write(waiting + self._line(self._row))
            file.truncate()
        self._row_start += len(waiting)

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


def last_step(run_dir: Path) -> int:
    """The last step in ``metrics.csv``; -1 if there is none."""
    step = -1
    with suppress(FileNotFoundError, UnreadableFileError):  # what stands before the damage counts
        for row in read_table(run_dir / "metrics.csv"):
            step = max(step, int(row[0])) if row and row[0].isdecimal() else step
    return step


def last_metrics(run_dir: Path) -> dict[str, float]:
    """The last value of each metric in ``metrics.csv``; of ``eval/`` those of the last evaluation alone."""
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return {}
    found: dict[str, float] = {}
    rows = read_table(path)
    columns = next(rows, [])
    for row in rows:
        pairs = zip(columns, row, strict=False)  # a row may be half written
        values = {name: value for name, value in pairs if value and name not in ("step", "epoch")}
        if any(name.startswith("eval/") for name in values):
            found = {name: value for name, value in found.items() if not name.startswith("eval/")}
        try:
            found |= {name: float(value) for name, value in values.items()}
        except ValueError:
            continue
    return found
