"""Facts of each run for a list of thousands: a snapshot of a few small files, without checkpoints, pictures, curves.

:mod:`ssl_lab.runs.read` reads all that one run holds.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from ssl_lab.limited import UnreadableFileError, load_json, open_regular, read_table, read_text
from ssl_lab.locks import lock
from ssl_lab.runs.files import noted, number, number_in, read_summary, shortened, time_of

STATUSES = ("running", "finished", "failed", "interrupted", "preempted", "pruned", "stale", "unknown")
"""``stale`` says it is running, but gives no sign of life; ``unknown`` has left no summary that can be read."""
STALE_AFTER_SEC = 300.0
"""A run writes its heartbeat about every 30 seconds."""
_LAST_MOMENT = 250_000_000_000.0  # Unix seconds, in the year 9892


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts of a run, read without opening its checkpoints, pictures or learning curves.

    Attributes:
        path: The run directory.
        sweep: The folder of the sweep that it is a trial of, or None.
        status: One of ``STATUSES``.
        experiment: Name of the experiment, or None.
        method: Class of the method, or None.
        data: Title of the data, or None.
        encoder: Class of the encoder, or None.
        seed: The seed, or None.
        step: Steps done, or None.
        epoch: Epochs done, or None.
        samples_per_sec: Throughput, or None.
        objective: Name of the metric that the run is judged by, or None.
        value: Its last value, or None.
        started: Unix seconds, or None.
        last_sign: Unix seconds of the last heartbeat or change of the summary, whichever is later; None without both.
        wall_time_sec: Duration of the whole run once it has ended, of what has passed until its last sign before; or None.
        error: Why it failed or stopped, or None.
        host: The host that wrote the last heartbeat, or None.
        slurm_job_id: The Slurm job that did, or None.
        metrics: Final metrics, empty before the end.
        problems: Files that could not be read, as sentences.
    """

    path: Path
    sweep: Path | None
    status: str
    experiment: str | None
    method: str | None
    data: str | None
    encoder: str | None
    seed: int | None
    step: int | None
    epoch: int | None
    samples_per_sec: float | None
    objective: str | None
    value: float | None
    started: float | None
    last_sign: float | None
    wall_time_sec: float | None
    error: str | None
    host: str | None
    slurm_job_id: str | None
    metrics: Mapping[str, float]
    problems: Sequence[str]

    @property
    def name(self) -> str:
        """The experiment, or else method, data and encoder as far as they are known."""
        parts = (self.method, self.data, self.encoder)
        return self.experiment or " / ".join(part for part in parts if part) or "–"

    @property
    def newest(self) -> float:
        """Unix seconds that order runs by time."""
        return self.started or self.last_sign or 0.0


def read_facts(path: Path, sweep: Path | None = None) -> RunFacts:
    """The facts of one run; missing, incomplete or mistyped ones are None and named in ``problems``."""
    problems: list[str] = []
    summary = read_summary(path, problems)
    heartbeat: dict[str, Any] = noted(lambda: load_json(path / "heartbeat.json", within=path), problems, {})
    status = summary.get("status")
    status = status if status in STATUSES else "unknown"
    signs = (_moment(number(heartbeat.get("time"))), _changed(path / "summary.json"))
    last_sign = max((sign for sign in signs if sign is not None), default=None)
    host = _text(heartbeat.get("host"))
    if status == "running" and _is_stale(path, last_sign, host):
        status = "stale"
    live = heartbeat if status in ("running", "stale") else {}
    objective = summary.get("objective", {})
    metrics = summary.get("metrics", {})
    name = objective.get("name") or _objective_of_config(path / "config.yaml", problems)
    value = objective.get("value")
    if value is None and name is not None:
        value = metrics.get(name) if status == "finished" else last_value(path / "metrics.csv", name)
    started = _time(summary.get("started"))
    wall_time_sec = summary.get("wall_time_sec")
    if wall_time_sec is None and started is not None and last_sign is not None:
        wall_time_sec = max(0.0, last_sign - started)

    def newest_number(key: str) -> float | None:
        newest = number(live.get(key))
        return summary.get(key) if newest is None else newest

    return RunFacts(
        path=path,
        sweep=sweep,
        status=status,
        experiment=summary.get("experiment") or None,
        method=summary.get("method") or None,
        data=summary.get("data") or None,
        encoder=summary.get("encoder") or None,
        seed=_whole(summary.get("seed")),
        step=_whole(newest_number("step")),
        epoch=_whole(newest_number("epoch")),
        samples_per_sec=newest_number("samples_per_sec"),
        objective=name,
        value=value,
        started=started,
        last_sign=last_sign,
        wall_time_sec=wall_time_sec,
        error=summary.get("error") or None,
        host=host,
        slurm_job_id=_job(heartbeat.get("slurm_job_id")),
        metrics=metrics,
        problems=problems,
    )


def last_value(path: Path, metric: str) -> float | None:
    """The last value of a metric in ``metrics.csv``; None if the file or the column has none, or it is not finite."""
    value = None
    try:
        rows = read_table(path, within=path.parent)
        head = next(rows, [])
        if metric in head:
            column = head.index(metric)
            for row in rows:
                if len(row) > column and row[column].strip():
                    value = number(number_in(row[column]))
    except (FileNotFoundError, UnreadableFileError):  # what stands before the damage counts
        pass
    return value


def is_stale(run: RunFacts) -> bool:
    """Return whether a run marked as running has had no heartbeat for long, or its process has gone."""
    return _is_stale(run.path, run.last_sign, run.host)


def _is_stale(path: Path, last_sign: float | None, host: str | None) -> bool:
    if last_sign is None or time.time() - last_sign > STALE_AFTER_SEC:
        return True
    return host == socket.gethostname() and _is_unlocked(path / ".lock")


def _is_unlocked(path: Path) -> bool:
    """Return whether a lock file exists and no process holds it."""
    try:
        with open_regular(path, within=path.parent) as file:
            lock(file.fileno(), shared=True)  # closing it gives it back
    except (OSError, UnreadableFileError):  # held, or not there
        return False
    return True


def _objective_of_config(path: Path, problems: list[str]) -> str | None:
    """``objective`` of a configuration, found without parsing the whole of it."""
    text = noted(lambda: read_text(path, within=path.parent), problems, "")
    match = re.search(r"^objective: *['\"]?([^\s'\"#]+)", text, re.MULTILINE)
    return shortened(match[1]) if match and match[1] not in ("null", "~") else None


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _text(value: object) -> str | None:
    return shortened(value) if isinstance(value, str) and value else None


def _job(value: object) -> str | None:
    return shortened(str(value)) if isinstance(value, int | str) and value else None


def _moment(seconds: float | None) -> float | None:
    """A time that a calendar has."""
    return seconds if seconds is not None and 0 < seconds < _LAST_MOMENT else None


def _time(text: str | None) -> float | None:
    time_ = None if text is None else time_of(text)
    if time_ is None:
        return None
    return _moment((time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp())
