"""Status of a run in ``summary.json``: its start, and how it ended."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.callbacks.heartbeat import Heartbeat
from ssl_lab.engine.checkpoints.signals import InterruptedRunError
from ssl_lab.engine.logging.dashboards import dashboards
from ssl_lab.engine.pruned import PrunedRunError
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import read_json, update_summary
from ssl_lab.runs.environment import environment


def tell_start(
    trainer: L.Trainer, method: Method, datamodule: DataModule, beginning: Beginning, *, resumed: bool
) -> None:
    """Write the facts of the run, as soon as it may write; it started with its first life."""
    if not trainer.is_global_zero:
        return
    run_dir, facts = beginning.run_dir, _description(method, datamodule) | environment()

    def write() -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = read_json(run_dir / "summary.json").get("started") if resumed else None
        update_summary(run_dir, **facts, started=started or now, status="running", error=None)

    beginning.do(write)


def _description(method: Method, datamodule: DataModule) -> dict[str, Any]:
    columns = datamodule.columns(datamodule.train_split)
    return {
        "method": type(method).__name__,
        "data": datamodule.title,
        "encoder": method.encoder.title,
        "num_parameters": sum(p.numel() for p in method.encoder.parameters()),
        "num_train_samples": len(next(iter(columns.values()))),
        **datamodule.metrics(),
    }


@contextmanager
def told_ending(
    trainer: L.Trainer, beginning: Beginning, heartbeat: Heartbeat, objective: str | None, *, resumed: bool
) -> Iterator[dict[str, float]]:
    """Write how the run ends: finished, with the metrics put into the yielded dictionary, or why it stopped.

    Raises:
        BaseException: What stopped the run.
    """
    metrics: dict[str, float] = {}
    try:
        yield metrics
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            error = KeyboardInterrupt()  # Lightning turns a second Ctrl-C into an exit
        _tell_stop(trainer, beginning, error, resumed=resumed)
        raise error
    finally:
        heartbeat.stop()
    _tell_finish(trainer, beginning.run_dir, heartbeat, metrics, objective)


def _tell_stop(trainer: L.Trainer, beginning: Beginning, error: BaseException, *, resumed: bool) -> None:
    summary = beginning.run_dir / "summary.json"
    stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    status = error.status if isinstance(error, InterruptedRunError | PrunedRunError) else stopped
    message = str(error) or type(error).__name__
    try:  # first: a job that is preempted may have no time to wait for uploads
        if trainer.is_global_zero and beginning.done:
            step = optimizer_steps_done(trainer)  # none where the checkpoint was not restored yet
            update_summary(
                beginning.run_dir, status=status, error=message, **({"step": step} if step or not resumed else {})
            )
    except (OSError, ValueError) as problem:  # never in place of the error, which may ask for another life
        warnings.warn(f"{summary} cannot be written ({problem}).", stacklevel=1)
    finally:
        for board in dashboards(trainer):
            board.finish(failed=True)


def _tell_finish(
    trainer: L.Trainer, run_dir: Path, heartbeat: Heartbeat, metrics: dict[str, float], objective: str | None
) -> None:
    throughput = heartbeat.throughput
    facts = {
        "status": "finished",
        "step": optimizer_steps_done(trainer),
        "epoch": trainer.current_epoch,
        "metrics": metrics,
        "objective": {"name": objective, "value": metrics.get(objective)} if objective else None,
        "wall_time_sec": throughput.wall_time_sec,
        "training_time_sec": throughput.training_time_sec,
        "evaluation_time_sec": throughput.evaluation_time_sec,
        "samples_per_sec": throughput.num_samples / max(throughput.training_time_sec, 1e-9),
    }
    distributed.on_first_rank(lambda: update_summary(run_dir, **facts))
    for board in dashboards(trainer):
        board.finish(failed=False)
