"""Sweeps and interrupted jobs on a real Slurm: two ranks on the CPU, weights equal to the last bit."""

import json
import subprocess
import sys
import time

import pytest
import torch
from cluster.slurm import alone

SSL_LAB = [sys.executable, "-m", "ssl_lab.cli.main"]
SMALL = [
    "experiment=simclr_digits",
    "trainer=ddp_cpu",
    "trainer.max_epochs=6",
    "trainer.log_every_n_steps=1",
    "data.batch_size=32",
    "encoder.widths=[8,16]",
    "method.hidden_dim=16",
    "evaluation=none",
    "objective=null",
]
ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1']",
    "hydra.launcher.cpus_per_task=1",
]

SCRIPT = """\
#!/bin/bash
#SBATCH --ntasks-per-node=2 --cpus-per-task=1 --time=60 --signal=USR1@300 --requeue
#SBATCH --open-mode=append --output=log.txt
export MASTER_ADDR=127.0.0.1
srun {command}
"""


def sweep(cluster, folder, *args):
    command = [*SSL_LAB, "pretrain", "-m", *SMALL, *ON_SLURM, "sweep_dir=sweep", *args]
    return subprocess.run(command, cwd=folder, env=cluster.env, capture_output=True, text=True, timeout=600)


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


def weights(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trials(_cluster, tmp_path_factory):
    """Two trials of two ranks each by the launcher, never interrupted: what it printed, and the run directories."""
    folder = tmp_path_factory.mktemp("sweep")
    with alone():
        done = sweep(_cluster, folder, "seed=1,2")
    assert done.returncode == 0, done.stderr[-3000:]
    run_dirs = [path.parent for path in folder.glob("sweep/*/summary.json")]
    return folder, done.stdout, sorted(run_dirs, key=lambda run_dir: summary(run_dir)["seed"])


def last_step(folder):
    metrics = folder / "run/metrics.csv"
    rows = metrics.read_text().splitlines()[1:] if metrics.is_file() else []
    return int(rows[-1].partition(",")[0]) if rows else 0


def train_to(step, cluster, job, folder):
    start = time.monotonic()
    while last_step(folder) < step or cluster.jobs()[job] != "RUNNING":
        assert time.monotonic() - start < 500, (folder / "log.txt").read_text()
        time.sleep(0.1)


def wait_until_queued(cluster, job):
    start = time.monotonic()
    while cluster.jobs()[job] != "PENDING":
        assert time.monotonic() - start < 120, cluster("scontrol", "show", "job", job)
        time.sleep(0.1)


def test_a_sweep_is_a_job_array_with_a_rank_for_each_task(slurm, trials):
    folder, printed, (first, second) = trials
    assert [summary(trial)["seed"] for trial in (first, second)] == [1, 2]
    for trial in (first, second):
        assert summary(trial)["status"] == "finished"
        (log,) = folder.glob(f"sweep/slurm/*_{second == trial:d}/*_0_log.out")
        assert "CPUAccelerator x 2" in log.read_text()
    assert weights(first).keys() == weights(second).keys()
    assert "2 of 2 trials" in printed
    rows = [line for line in printed.splitlines() if "seed=" in line and "finished" in line and " trials: " not in line]
    assert len(rows) == 2, printed


def test_a_failed_trial_is_told_with_its_log_and_a_finished_one_needs_no_job(slurm, tmp_path):
    one = ["trainer=cpu", "trainer.max_epochs=1", "seed=1"]
    done = sweep(slurm, tmp_path, *one, "method.temperature=-1,0.5")
    assert done.returncode == 1
    (told,) = [line for line in done.stderr.splitlines() if "temperature must be positive" in line]
    log = told.rpartition("Log: ")[2]
    with open(log) as file:
        assert "temperature must be positive" in file.read()
    assert "Traceback" not in done.stderr
    status = {path.parent.name: summary(path.parent)["status"] for path in tmp_path.glob("sweep/*/summary.json")}
    assert sorted(status.values()) == ["failed", "finished"]

    (finished,) = [
        path for path in tmp_path.glob("sweep/*/summary.json") if summary(path.parent)["status"] == "finished"
    ]
    before = finished.read_bytes(), len(list(tmp_path.glob("sweep/slurm/*")))
    again = sweep(slurm, tmp_path, *one, "method.temperature=-1,0.5")
    assert again.returncode == 1, "the failed one is tried again"
    assert "finished" in again.stdout
    assert finished.read_bytes() == before[0]
    assert len(list(tmp_path.glob("sweep/slurm/*"))) < 2 * before[1], "the finished one was not submitted"


def test_a_job_that_is_stopped_in_every_way_ends_with_the_same_weights(slurm, tmp_path, trials):
    """Put back by hand, preempted by a job of higher priority, and out of time; with slow batches, to be met by each."""
    slow = "+callbacks.slow={_target_: cluster.slow.Slow, seconds: 0.5}"
    command = [*SSL_LAB, "pretrain", *(f"'{setting}'" for setting in (*SMALL, slow)), "seed=1", "run_dir=run"]
    (tmp_path / "job.sh").write_text(SCRIPT.format(command=" ".join(command)))
    log = tmp_path / "log.txt"
    job = slurm("sbatch", "--parsable", "--partition=scav", "job.sh", cwd=tmp_path)

    train_to(5, slurm, job, tmp_path)
    slurm("scontrol", "requeue", job)
    wait_until_queued(slurm, job)
    stopped_at = summary(tmp_path / "run")["step"]
    assert summary(tmp_path / "run")["status"] == "preempted"

    train_to(stopped_at + 5, slurm, job, tmp_path)
    assert log.read_text().count("resumed from last.ckpt") == 1
    urgent = slurm("sbatch", "--parsable", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=tmp_path)
    assert slurm.wait(urgent) == "COMPLETED"
    assert f"SIGTERM; job {job} is queued again" in log.read_text()
    stopped_at = summary(tmp_path / "run")["step"]

    train_to(stopped_at + 5, slurm, job, tmp_path)
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=5")  # all of which is for saving; Slurm looks twice a minute
    wait_until_queued(slurm, job)
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    assert f"SIGUSR1; job {job} is queued again" in log.read_text()

    assert slurm.wait(job, 500) == "COMPLETED", log.read_text()
    assert slurm.fact(job, "Restarts") == "3"
    assert log.read_text().count("resumed from last.ckpt") == 3
    _, _, (whole, _) = trials
    assert summary(tmp_path / "run")["status"] == "finished"
    assert summary(tmp_path / "run")["step"] == summary(whole)["step"]
    expected, found = weights(whole), weights(tmp_path / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
