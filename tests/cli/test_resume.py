"""What a run directory that holds a run does to the next command: resumed, left alone, or refused."""

import csv
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch

from ssl_lab.cli.main import main
from ssl_lab.cli.resume import trial_name
from ssl_lab.engine.checkpoints.signals import InterruptedRunError, stop_on_signals
from ssl_lab.methods.vae import VAE
from ssl_lab.runs.lock import lock_run

SMALL = [
    *("data.batch_size=64", "encoder.widths=[8,16]", "method.hidden_dim=16", "views@method.views=digits"),
    *("evaluation=none", "trainer=cpu", "trainer.log_every_n_steps=1"),
]
LENGTH = ["trainer.max_epochs=-1", "trainer.max_steps=12"]
COMMAND = [sys.executable, "-m", "ssl_lab.cli.main"]


def pretrain(*args):
    return main(["pretrain", *SMALL, *args])


def weights(run_dir, name="last"):
    return torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def step(run_dir, name="last"):
    return torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)["global_step"]


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


def rows(run_dir):
    """metrics.csv without speeds."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{name: row[name] for name in row if not name.startswith("perf/")} for row in csv.DictReader(file)]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of twelve steps that nothing has interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(*LENGTH, f"run_dir={run_dir}", "save_every_n_steps=5") == 0
    return run_dir


def copy_of(run_dir, tmp_path):
    subprocess.run(["cp", "-r", run_dir, tmp_path / "run"], check=True)
    return tmp_path / "run"


def test_the_last_two_checkpoints_are_kept(whole):
    assert (step(whole), step(whole, "previous")) == (12, 10)
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_a_torn_checkpoint_costs_a_warning_and_the_one_before_is_used(whole, tmp_path):
    run_dir = copy_of(whole, tmp_path)
    last = run_dir / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match="is truncated or damaged.*previous.ckpt, optimizer step 10"):
        assert main(["pretrain", f"run={run_dir}", "ckpt=last"]) == 0
    assert step(run_dir) == 12
    assert same(weights(run_dir), weights(whole))


def test_a_run_that_died_between_two_renames_goes_on(whole, tmp_path):
    run_dir = copy_of(whole, tmp_path)
    (run_dir / "checkpoints/last.ckpt").unlink()
    (run_dir / "summary.json").write_text(json.dumps({**summary(run_dir), "status": "running"}))
    assert main(["pretrain", f"run={run_dir}"]) == 0
    assert same(weights(run_dir), weights(whole))


def test_a_finished_run_is_not_run_again(whole, capsys):
    before = (whole / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert main(["pretrain", f"run={whole}"]) == 0
    assert "has finished before" in capsys.readouterr().out
    assert pretrain(*LENGTH, f"run_dir={whole}") == 0
    assert (whole / "checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_other_settings_are_refused_with_the_difference_unless_forced(whole, tmp_path, capsys):
    run_dir = copy_of(whole, tmp_path)
    assert main(["pretrain", f"run={run_dir}", "trainer.max_steps=15"]) == 1
    assert "trainer.max_steps: 12, now 15" in capsys.readouterr().err
    assert step(run_dir) == 12
    assert main(["pretrain", f"run={run_dir}", "trainer.max_steps=15", "force=true"]) == 0
    assert step(run_dir) == 15
    assert "force=true" not in (run_dir / "overrides.yaml").read_text()
    assert main(["pretrain", f"run={run_dir}"]) == 0  # the new length is the run's own now


def test_another_batch_size_is_refused_even_if_forced(whole, tmp_path, capsys):
    run_dir = copy_of(whole, tmp_path)
    args = ["trainer.max_steps=15", "data.batch_size=32", "force=true"]
    assert main(["pretrain", f"run={run_dir}", *args]) == 1
    assert "was made with 64 of" in capsys.readouterr().err


def test_a_directory_with_a_run_can_be_refused(whole, capsys):
    assert pretrain(*LENGTH, f"run_dir={whole}", "resume=never") == 1
    assert "it holds one, and resume=never" in capsys.readouterr().err


def test_no_run_to_go_on_with(tmp_path, capsys):
    assert main(["pretrain", f"run={tmp_path}"]) == 1
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["pretrain", f"run={tmp_path}", "-m"]) == 1
    assert "sweep_dir=" in capsys.readouterr().err


def test_a_sweep_started_again_runs_only_what_is_not_finished(tmp_path, capsys):
    def sweep(seeds):
        args = ["-m", f"seed={seeds}", f"sweep_dir={tmp_path}", "trainer=smoke", "objective=train/loss"]
        assert main(["pretrain", *SMALL[:-2], *args]) == 0
        return capsys.readouterr().out

    sweep("0,1")
    trials = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [trial.name.split("seed=")[1][0] for trial in trials] == ["0", "1"]
    times = {trial: (trial / "checkpoints/last.ckpt").stat().st_mtime_ns for trial in trials}
    again = sweep("2,1,0")
    assert again.count("has finished before with train/loss") == 2
    assert times == {trial: (trial / "checkpoints/last.ckpt").stat().st_mtime_ns for trial in trials}
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_names_of_trials_are_short_and_distinct():
    def name(*overrides, fixed=("trainer", "run_dir")):
        return trial_name([*overrides, "trainer=smoke", "run_dir=x"], fixed)

    assert name("seed=1", "method.temperature=0.2") == "temperature=0.2,seed=1"
    assert name("views@method.views=a", "+encoder.widths=[8,16]") == "widths=[8,16],views=a"
    assert name("optim.lr=1", "method.lr=2") == "method.lr=2,optim.lr=1", "short names that are the same stay long"
    fixed = ("trainer", "run_dir", "experiment", "method", "seed", "optim.lr")
    alone = [
        name("experiment=simclr_digits", "seed=1", *more, fixed=fixed)
        for more in ((), ("optim.lr=1",), ("optim.lr=2",))
    ]
    assert all(re.fullmatch("simclr_digits,seed=1-[0-9a-f]{8}", one) for one in alone) and len(set(alone)) == 3
    assert re.fullmatch("byol-[0-9a-f]{8}", name("method=byol", fixed=fixed)) and name(fixed=fixed).startswith("trial-")
    values = [
        "/a/b",
        "/a_b",
        "'/a b'",
        "'/a  b'",
        "a",
        "'a'",
        "'a,seed=1'",
        '"a"',
        "x" * 300,
        "x" * 299,
        "é" * 90,
        "é" * 91,
    ]
    names = [name(f"data.path={value}", "seed=1") for value in values]
    assert len(set(names)) == len(names), "two trials never share a folder"
    assert all("/" not in one and len(os.fsencode(one)) <= 120 for one in names)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EROFS])
def test_a_folder_without_locks_is_a_warning_and_one_without_rights_is_refused(code, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if code == errno.EROFS:
        with pytest.raises(
            ValueError, match=r"it cannot be written to \(Read-only file system\). Choose another run_dir="
        ):
            lock_run(tmp_path / "run")
    else:
        with pytest.warns(UserWarning, match="has no locks .* Start one process per run directory"):
            lock_run(tmp_path / "run").release()


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path, capsys):
    args = [*SMALL, "trainer.max_epochs=1000", f"run_dir={tmp_path / 'run'}"]
    process = forked.start("pretrain", *args)
    try:
        start = time.monotonic()
        while not (tmp_path / "run/heartbeat.json").is_file():
            assert process.poll() is None and time.monotonic() - start < 120
            time.sleep(0.05)
        assert main(["pretrain", *args]) == 1
        assert f"Another process (process {process.pid} on " in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()
    lock_run(tmp_path / "run").release()
    assert summary(tmp_path / "run")["status"] == "running"  # nobody was left to say otherwise


def test_a_full_disk_costs_a_warning_and_the_last_checkpoint_stays(whole, tmp_path):
    """The shell's limit on the size of a file makes writing fail as a full disk does."""
    run_dir = copy_of(whole, tmp_path)
    size = (run_dir / "checkpoints/last.ckpt").stat().st_size
    before = weights(run_dir)
    command = [*COMMAND, "pretrain", f"run={run_dir}", "trainer.max_steps=24", "save_every_n_steps=5", "force=true"]
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f {size // 1024 - 20}; exec "$@"', "bash", *command], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "The state of step 17 could not be saved" in done.stderr
    assert "the checkpoint of step 12 stays" in done.stderr
    assert "Traceback" not in done.stderr
    assert summary(run_dir)["status"] == "failed"
    assert same(weights(run_dir), before)
    assert not list((run_dir / "checkpoints").glob("*.partial"))
    assert main(["pretrain", f"run={run_dir}"]) == 0
    assert step(run_dir) == 24


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, "preempted"), (signal.SIGUSR1, "preempted")])
def test_signals_outside_of_training_end_the_command_at_once(number, status):
    before = {known: signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        stop_on_signals()
        with pytest.raises(InterruptedRunError, match=f"{number.name} stopped the command") as stopped:
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert stopped.value.status == status
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def test_usr1_saves_and_the_same_command_goes_on(tmp_path, whole):
    process = forked.start("pretrain", *SMALL, "trainer.max_epochs=300", "run_dir=run", cwd=tmp_path)
    metrics = Path(tmp_path / "run/metrics.csv")
    start = time.monotonic()
    while not (metrics.is_file() and "\n5," in metrics.read_text()):
        assert process.poll() is None and time.monotonic() - start < 120
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SIGUSR1 stopped the run" in errors and "ssl-lab pretrain run=" in errors
    stopped = summary(tmp_path / "run")
    assert stopped["status"] == "preempted"
    stopped_at = step(tmp_path / "run")
    assert stopped_at == stopped["step"] > 4


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_run_that_stops_at_the_end_of_an_epoch_and_again_loses_nothing(accumulate, tmp_path, monkeypatch):
    """The epoch's evaluation is made up, and windows of accumulated gradients begin where they would have."""
    step = VAE.training_step
    args = [*SMALL[:2], "method=vae", "method.latent_dim=8", "evaluation=label_free", "trainer=cpu"]
    args += ["callbacks=online_probes", "evaluate_every_n_epochs=1", "trainer.log_every_n_steps=1"]
    args += [f"trainer.accumulate_grad_batches={accumulate}", "trainer.max_epochs=3"]

    def run(name, stop_at=None):
        def stopped(self, batch, batch_idx):
            if stop_at is not None and self.trainer.fit_loop.total_batch_idx + 1 >= stop_at:
                os.kill(os.getpid(), signal.SIGUSR1)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(VAE, "training_step", stopped)
        return main(["pretrain", *args, f"run_dir={tmp_path / name}"])

    assert run("whole") == 0
    per_epoch = summary(tmp_path / "whole")["step"] // 3
    for stop_at in (per_epoch, per_epoch + 1, per_epoch + 5, 2 * per_epoch, 3 * per_epoch):
        assert run("parts", stop_at) == 1
    assert run("parts") == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_what_a_run_began_from_is_behind_it(whole, tmp_path, capsys):
    """The same command with ``ckpt=PATH`` resumes what its directory holds, however often a scheduler starts it."""
    start = whole / "checkpoints/previous.ckpt"
    args = [*LENGTH, f"ckpt={start}", f"run_dir={tmp_path / 'run'}"]
    assert pretrain(*args) == 0
    assert same(weights(tmp_path / "run"), weights(whole))
    assert pretrain(*args) == 0
    assert "has finished before" in capsys.readouterr().out


def test_a_damaged_checkpoint_never_replaces_the_good_one(whole, tmp_path):
    run_dir = copy_of(whole, tmp_path)
    (run_dir / "checkpoints/last.ckpt").write_bytes(b"torn")
    args = ["pretrain", f"run={run_dir}", "ckpt=last", "save_every_n_steps=1"]
    good = weights(run_dir, "previous")
    with pytest.warns(UserWarning, match="optimizer step 10"):
        assert main([*args, "trainer.max_steps=11", "force=true"]) == 0
    assert (step(run_dir), step(run_dir, "previous")) == (11, 10)
    assert same(weights(run_dir, "previous"), good)


def test_a_signal_during_the_last_evaluation_is_not_forgotten(tmp_path, monkeypatch):
    """It stops the run before the baselines; the same command judges it."""
    from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining

    evaluate = EvaluateDuringTraining.evaluate

    def slow(self, method, protocols):
        os.kill(os.getpid(), signal.SIGUSR1)
        return evaluate(self, method, protocols)

    args = [*SMALL[:4], "evaluation=features", "trainer=smoke", f"run_dir={tmp_path / 'run'}"]
    monkeypatch.setattr(EvaluateDuringTraining, "evaluate", slow)
    assert main(["pretrain", *args]) == 1
    assert summary(tmp_path / "run")["status"] == "preempted"
    assert not (tmp_path / "run/evaluation.json").exists()
    monkeypatch.undo()
    assert main(["pretrain", *args]) == 0
    assert summary(tmp_path / "run")["status"] == "finished"
