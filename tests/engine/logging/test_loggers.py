"""What runs leave in metrics.csv, and for Weights & Biases, read back with its own reader."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from forked import ssl_lab

from ssl_lab.engine.logging.loggers import MetricsFile

SETTINGS = [
    "data.batch_size=64",
    "encoder.widths=[8,16]",
    "views@method.views=digits",
    "method.hidden_dim=16",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "evaluate_every_n_epochs=1",
]
SCALARS = {"train/loss", "eval/knn/top1", "test/linear/top1", "optim/lr", "perf/samples_per_sec", "perf/data_wait_frac"}


def test_no_row_is_lost_whenever_a_run_is_killed(tmp_path):
    """What is in the file after each call is what a kill would leave."""

    def rows():
        with (tmp_path / "metrics.csv").open(newline="") as file:
            return [(row["step"], row["train/loss"], row.get("eval/knn/top1")) for row in csv.DictReader(file)]

    first = MetricsFile(tmp_path)
    for step in range(3):
        first.log_metrics({"train/loss": step / 2}, step)
    first.flush()
    before = rows()
    assert before == [("0", "0.0", None), ("1", "0.5", None), ("2", "1.0", None)]
    second = MetricsFile(tmp_path)
    second.log_metrics({"eval/knn/top1": 0.9}, 2)
    assert rows() == before
    third = MetricsFile(tmp_path)
    third.log_metrics({"eval/knn/top1": 0.8}, 2)
    third.log_metrics({"train/loss": 3.0}, 3)
    assert [row[:2] for row in rows()] == [row[:2] for row in before] and rows()[-1][2] == "0.8"
    third.finalize("success")
    assert rows()[-2:] == [("2", "1.0", "0.8"), ("3", "3.0", "")]
    fourth = MetricsFile(tmp_path)
    fourth.log_metrics({"train/loss": 7.0}, 1)
    fourth.flush()
    assert rows() == [("0", "0.0", ""), ("1", "7.0", "")], "those after the step are of a life that is replaced"


def wandb_run(folder):
    """What an offline run holds, by W&B's own reader."""
    (file,) = folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_wandb_goes_offline_without_a_question_and_gives_every_trial_a_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # no login
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    done = ssl_lab("pretrain", *SETTINGS, "-m", "seed=0,1", "logger=wandb", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wandb sync") == 2
    folders = list(Path(tmp_path, "sweep").glob("*/wandb/offline-run-*"))
    assert len(folders) == 2
    for folder in folders:
        assert b"sweep" in next(folder.glob("*.wandb")).read_bytes()  # the sweep's folder is the group
        text = json.dumps(wandb_run(folder))
        for name in SCALARS | {"pictures/views", "pictures/projection"}:
            assert f'"{name}' in text, name
