"""Run directories written by the writers that real runs use, without any training."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import OmegaConf

from ssl_lab.engine.logging.loggers import MetricsFile
from ssl_lab.runs.directory import update_summary, write_json

OBJECTIVE = "eval/linear/top1"
ENDED = ("finished", "failed", "interrupted", "preempted", "pruned")


def make_run(path, *, status="finished", value=0.9, age=3600.0, beat=None, host="elsewhere", overrides=None, **facts):
    """A run that began ``age`` seconds ago; ``beat`` is the age of its heartbeat in seconds, None for none."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(f"seed: 3\nobjective: {OBJECTIVE}\nmethod:\n  temperature: 0.5\n")
    (path / "overrides.yaml").write_text(OmegaConf.to_yaml(overrides or ["experiment=simclr_digits", "seed=3"]))
    metrics = MetricsFile(path)
    for step in range(0, 200, 10):
        metrics.log_metrics({"train/loss": 1 / (1 + step)}, step=step)
    metrics.log_metrics({OBJECTIVE: value}, step=200)
    metrics.finalize("success")
    known = {"experiment": "simclr_digits", "method": "SimCLR", "data": "Digits", "encoder": "ConvNet", "seed": 3}
    started = datetime.fromtimestamp(time.time() - age, UTC).isoformat(timespec="seconds")
    update_summary(path, **{**known, "status": status, "started": started, "step": 200, "epoch": 20, **facts})
    if status == "finished":
        final = {OBJECTIVE: value, "test/linear/top1": value - 0.01, "test/masked/perplexity": 100 * value}
        objective = {"name": OBJECTIVE, "value": value}
        update_summary(path, metrics=final, samples_per_sec=1234.5, wall_time_sec=age / 2, objective=objective)
    if beat is not None:
        pulse = {"time": time.time() - beat, "step": 210, "epoch": 21, "samples_per_sec": 99.0, "host": host, "pid": 1}
        write_json(path / "heartbeat.json", {**pulse, "slurm_job_id": None})
    return path


def make_many(root, num):
    """``num`` runs, a half of them trials of sweeps of fifty; every fifth has not finished."""
    for i in range(num):
        status = ENDED[i // 5 % 5] if i % 5 == 0 else "finished"
        place = root / "simclr_digits" / f"run_{i}" if i % 2 else root / "sweeps" / f"sweep_{i // 100}" / f"seed={i}"
        make_run(place, status=status, value=(i % 97) / 100, age=60.0 * (num - i), seed=i, beat=3600.0)


if __name__ == "__main__":  # python tests/cli/made_runs.py FOLDER NUM
    make_many(Path(sys.argv[1]), int(sys.argv[2]))
