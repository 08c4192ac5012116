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


@pytest.fixture
def job(slurm, tmp_path, trials):
    """The first of those trials once more, with slow batches, as a batch job that has begun to train."""
    jobs = []

    def submit(*options, seconds_per_batch=0.1):
        slow = f"+callbacks.slow={{_target_: cluster.slow.Slow, seconds: {seconds_per_batch}}}"
        settings = [*SMALL, slow, "seed=1", "run_dir=run"]
        command = " ".join([*SSL_LAB, "pretrain", *(f"'{setting}'" for setting in settings)])
        (tmp_path / "job.sh").write_text(SCRIPT.format(command=command))
        jobs.append(slurm("sbatch", "--parsable", *options, "job.sh", cwd=tmp_path))
        metrics, start = tmp_path / "run/metrics.csv", time.monotonic()
        while not (metrics.is_file() and "\n5," in metrics.read_text()):
            assert jobs[0] in slurm.jobs(), (tmp_path / "log.txt").read_text()
            assert time.monotonic() - start < 500, "training never began"
            time.sleep(0.05)
        return jobs[0]

    yield submit
    slurm("scancel", *jobs, check=False)


def assert_went_on_to_the_same_end(cluster, job, folder, trials):
    """Queued again once, gone on with from its checkpoint, and now as if nothing had been."""
    assert cluster.wait(job, 600) == "COMPLETED", (folder / "log.txt").read_text()
    assert cluster.fact(job, "Restarts") == "1"
    log = (folder / "log.txt").read_text()
    assert "gone on with from last.ckpt" in log
    _, _, (whole, _) = trials
    assert summary(folder / "run")["status"] == "finished"
    assert summary(folder / "run")["step"] == summary(whole)["step"]
    expected, found = weights(whole), weights(folder / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_sweep_is_a_job_array_with_a_rank_for_each_task(slurm, trials):
    folder, printed, (first, second) = trials
    assert [summary(trial)["seed"] for trial in (first, second)] == [1, 2]
    for trial in (first, second):
        assert summary(trial)["status"] == "finished"
        (log,) = folder.glob(f"sweep/slurm/*_{second == trial:d}/*_0_log.out")
        assert "CPUAccelerator x 2" in log.read_text()
    assert weights(first).keys() == weights(second).keys()
    assert "2 of 2 trials" in printed
    rows = [line for line in printed.splitlines() if "seed=" in line and "finished" in line and "│" in line]
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

    again = sweep(slurm, tmp_path, *one, "method.temperature=0.5")
    assert again.returncode == 0, again.stderr
    assert "none needed" in again.stdout
    assert slurm.jobs() == {}


def test_a_job_that_is_requeued_by_hand_goes_on(slurm, job, tmp_path, trials):
    number = job()
    slurm("scontrol", "requeue", number)
    assert_went_on_to_the_same_end(slurm, number, tmp_path, trials)


def test_a_job_gives_way_to_one_of_higher_priority_and_goes_on_after_it(slurm, job, tmp_path, trials):
    number = job("--partition=scav")
    other = slurm(
        "sbatch", "--parsable", "--partition=debug", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=tmp_path
    )
    assert slurm.wait(other) == "COMPLETED"
    assert number in slurm.jobs()
    assert_went_on_to_the_same_end(slurm, number, tmp_path, trials)
    assert f"SIGTERM; job {number} is queued again" in (tmp_path / "log.txt").read_text()


def test_before_its_time_is_over_a_job_saves_and_goes_on_in_the_queue(slurm, job, tmp_path, trials):
    number = job(seconds_per_batch=0.4)  # Slurm looks at time limits twice a minute
    slurm("scontrol", "update", f"JobId={number}", "TimeLimit=5")  # of which the last 300 s are for saving
    while slurm.jobs().get(number) == "RUNNING":
        time.sleep(0.1)
    slurm("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    assert_went_on_to_the_same_end(slurm, number, tmp_path, trials)
    assert f"SIGUSR1; job {number} is queued again" in (tmp_path / "log.txt").read_text()
