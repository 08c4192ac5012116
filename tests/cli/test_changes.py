"""A run resumed with other settings: refused without a trace, or applied, reported and kept beside."""

import csv
import errno
import json
import math
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from ssl_lab.cli.main import main
from ssl_lab.engine import beginning, feature_map
from ssl_lab.evaluation.geometry.label_free import RankMe
from ssl_lab.methods.simclr import SimCLR

SMALL = [
    *("method=simclr", "data=digits", "data.batch_size=512", "encoder.widths=[8,16]", "views@method.views=digits"),
    *("method.hidden_dim=16", "method.projection_dim=8", "evaluation=label_free", "trainer=cpu"),
    *("trainer.log_every_n_steps=1", "trainer.max_epochs=2", "pictures_every_n_epochs=null"),
]


@pytest.fixture(autouse=True, scope="module")
def no_map():
    """t-SNE takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_map, "projection", lambda x, y, names: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("changes") / "run"
    assert main(["pretrain", *SMALL, f"run_dir={run_dir}", "logger=tensorboard"]) == 0
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    subprocess.run(["cp", "-rp", finished, tmp_path / "run"], check=True)
    return tmp_path / "run"


def everything(folder):
    """Every file with its bytes, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


def rates(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row["optim/lr"]) for row in csv.DictReader(file) if row["optim/lr"]}


LONGER = "trainer.max_epochs=3"
REFUSED = {
    "another width": ([LONGER, "encoder.widths=[8,32]"], "do not fit the network of these settings"),
    "another width of the head": ([LONGER, "method.projection_dim=4"], "do not fit the network"),
    "no width": ([LONGER, "encoder.widths=[8,-1]"], ""),
    "another encoder": ([LONGER, "encoder=mlp", "~encoder.widths"], ""),
    "another method": ([LONGER, "method=byol"], "another method._target_"),
    "a related method": ([LONGER, "method=supcon"], "another method._target_"),
    "another optimizer": ([LONGER, "optim=sgd"], "another optim._target_"),
    "another seed": ([LONGER, "seed=1"], "another seed (0, now 1), even by force=true"),
    "another batch": ([LONGER, "data.batch_size=64"], "was made with 512 of"),
    "another batch and no step": (["data.batch_size=64"], "was made with 512 of"),
    "other splits": ([LONGER, "data.split_seed=3"], "samples that were trained on would be judged on"),
    "accumulation": ([LONGER, "trainer.accumulate_grad_batches=2"], "schedules so far"),
    "part of the batches": ([LONGER, "trainer.limit_train_batches=1"], "schedules so far"),
    "shorter": (["trainer.max_epochs=1"], "with trainer.max_epochs=1: its checkpoint is at 2"),
    "fewer steps": (
        ["trainer.max_steps=1", "trainer.max_epochs=-1"],
        "with trainer.max_steps=1: its checkpoint is at 4",
    ),
    "a bad trainer": ([LONGER, "trainer.precision=7"], ""),
    "a bad value": ([LONGER, "method.temperature=-1"], "temperature"),
    "a bad rate": ([LONGER, "optim.lr=-1"], "learning rate"),
    "a protocol of others": ([LONGER, "evaluation=mlm"], "needs"),
    "an unknown setting": ([LONGER, "optim.speed=1"], "speed"),
    "data that are not there": ([LONGER, "data=image_folder", "data.root=/nowhere"], "/nowhere"),
    "a ladder of loggers": ([LONGER, "logger=tensorboard", "encoder.widths=[8,32]"], "do not fit"),
}


@pytest.mark.parametrize(("change", "told"), REFUSED.values(), ids=REFUSED)
def test_a_refused_change_leaves_every_byte(change, told, finished, capsys):
    before = everything(finished)
    assert main(["pretrain", f"run={finished}", *change, "force=true"]) == 1
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert everything(finished) == before


def fails(error):
    def step(self, batch, batch_idx):
        raise error

    return step


def nan_loss(self, batch, batch_idx):
    return self.log_losses(self.encoder.embed(batch).mean() * float("nan"))


def stopped(self, batch, batch_idx):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


STEPS = {
    "memory": fails(torch.OutOfMemoryError("CUDA out of memory.")),
    "own code": fails(ValueError("too many values to unpack")),
    "nan": nan_loss,
    "Ctrl-C": stopped,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_change_that_fails_in_its_first_step_leaves_every_byte(step, finished, monkeypatch):
    before = everything(finished)
    monkeypatch.setattr(SimCLR, "training_step", step)
    assert main(["pretrain", f"run={finished}", LONGER, "force=true"]) != 0
    assert everything(finished) == before


def test_a_change_that_fails_in_the_evaluation_or_for_room_leaves_every_byte(finished, monkeypatch, capsys):
    before = everything(finished)
    with monkeypatch.context() as patch:
        patch.setattr(RankMe, "score", lambda self, x: fails(ValueError("no rank"))(self, x, 0))
        for change in (["evaluate_every_n_epochs=1", "force=true"], ["ckpt=last"]):
            assert main(["pretrain", f"run={finished}", *change]) == 1
            assert everything(finished) == before

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(beginning.shutil, "copy2", full)
    assert main(["pretrain", f"run={finished}", LONGER, "force=true"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert everything(finished) == before


def test_a_finished_run_whose_data_are_gone_stays_finished(finished, monkeypatch, capsys):
    before = everything(finished)
    monkeypatch.setattr(
        "ssl_lab.cli.build.build_data", lambda node, seed: (_ for _ in ()).throw(FileNotFoundError("gone"))
    )
    assert main(["pretrain", f"run={finished}", "ckpt=last"]) == 1
    assert "gone" in capsys.readouterr().err
    assert everything(finished) == before


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_run_that_has_lost_its_settings_is_not_replaced_by_a_new_one(as_folder, run_dir, capsys):
    (run_dir / "config.yaml").unlink()
    if as_folder:
        (run_dir / "config.yaml").mkdir()
    before = everything(run_dir)
    for args in ([f"run={run_dir}"], [*SMALL, f"run_dir={run_dir}"], [f"run={run_dir}", "force=true"]):
        assert main(["pretrain", *args]) == 1
        assert "whose config.yaml is missing, and a new run would replace it" in capsys.readouterr().err
    assert everything(run_dir) == before


def test_a_finished_run_without_metrics_is_still_finished(run_dir, capsys):
    facts = summary(run_dir)
    (run_dir / "summary.json").write_text(json.dumps({"status": "finished", "step": facts["step"]}))
    assert main(["pretrain", f"run={run_dir}"]) == 0
    assert "has finished before" in capsys.readouterr().out


def test_an_unfinished_run_that_cannot_go_on_says_why_and_keeps_its_facts(run_dir, monkeypatch):
    facts = {**summary(run_dir), "status": "preempted"}
    (run_dir / "summary.json").write_text(json.dumps(facts))
    monkeypatch.setattr(
        "ssl_lab.cli.build.build_data", lambda node, seed: (_ for _ in ()).throw(FileNotFoundError("gone"))
    )
    assert main(["pretrain", f"run={run_dir}"]) == 1
    now = summary(run_dir)
    assert "gone" in now["error"]
    assert now == {**facts, "status": "failed", "error": now["error"]}


def test_a_first_start_that_failed_is_no_run_to_protect(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(SimCLR, "training_step", STEPS["memory"])
        assert main(["pretrain", *SMALL, f"run_dir={run_dir}"]) == 1
    assert (summary(run_dir)["status"], summary(run_dir)["step"]) == ("failed", 0)
    assert main(["pretrain", *SMALL, f"run_dir={run_dir}", "data.batch_size=700", "trainer.max_epochs=1"]) == 0
    assert summary(run_dir)["status"] == "finished" and not (run_dir / "replaced").exists()


def test_a_forced_change_is_kept_beside_and_told(run_dir):
    before = everything(run_dir)
    change = [LONGER, "method.temperature=0.1", "force=true"]
    assert main(["pretrain", f"run={run_dir}", *change]) == 0
    kept = everything(run_dir / "replaced/1")
    assert {name: before[name] for name in kept} == kept
    assert {"config.yaml", "summary.json", "evaluation.json", "metrics.csv", "checkpoints/last.ckpt"} <= set(kept)
    changed = "trainer.max_epochs: 2, now 3; method.temperature: 0.2, now 0.1"
    assert summary(run_dir)["changes"] == [f"at step 4: {changed} (before: replaced/1)"]
    assert summary(run_dir)["step"] == 6 and summary(run_dir)["status"] == "finished"
    assert "temperature: 0.2, now 0.1" in (run_dir / "report.html").read_text()
    assert main(["evaluate", f"run={run_dir / 'replaced/1'}"]) == 0  # a run directory of its own
    assert main(["pretrain", f"run={run_dir}"]) == 0  # with its new settings, by which it has finished


def test_forced_settings_of_the_optimizer_take_effect(run_dir):
    """Another rate is a new peak, from which the schedule falls over the steps that are left, in later lives too."""
    change = [LONGER, "optim.lr=0.05", "optim.weight_decay=0.3", "optim.betas=[0.5,0.9]", "optim.warmup_fraction=0"]
    assert main(["pretrain", f"run={run_dir}", *change, "force=true"]) == 0
    assert OmegaConf.load(run_dir / "config.yaml").optim.lr == 0.05
    logged = rates(run_dir)  # of the step that follows
    assert [logged[step] for step in (4, 5)] == pytest.approx([0.025, 0]) and max(logged[k] for k in range(4)) <= 2e-3
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [(group["weight_decay"], list(group["betas"])) for group in groups] == [(0.3, [0.5, 0.9]), (0.0, [0.5, 0.9])]
    assert checkpoint["lr_schedulers"][0]["base_lrs"] == [0.05, 0.05]
    assert main(["pretrain", f"run={run_dir}", "trainer.max_epochs=4", "force=true"]) == 0
    assert rates(run_dir)[6] == pytest.approx(0.05 * (1 + math.cos(0.75 * math.pi)) / 2)


def test_a_longer_run_has_the_rates_of_its_whole_length(run_dir, tmp_path):
    assert main(["pretrain", f"run={run_dir}", "trainer.max_epochs=4", "force=true"]) == 0
    assert main(["pretrain", *SMALL, "trainer.max_epochs=4", f"run_dir={tmp_path / 'whole'}"]) == 0
    longer, whole = rates(run_dir), rates(tmp_path / "whole")
    assert [longer[step] for step in range(4, 8)] == [whole[step] for step in range(4, 8)]


def test_data_that_changed_are_refused_unless_forced(tmp_path, capsys):
    from data.picture_files import grey, write_classes

    root = write_classes(tmp_path / "pets")
    args = [*SMALL, "data=image_folder", f"data.root={root}", "data.batch_size=8", f"run_dir={tmp_path / 'run'}"]
    assert main(["pretrain", *args]) == 0
    for path in root.glob("*/*.png"):
        grey(250).save(path)
    before = everything(tmp_path / "run")
    assert main(["pretrain", *args, "ckpt=last"]) == 1
    assert "its data changed (pretrain: 16 samples of other content" in capsys.readouterr().err
    assert everything(tmp_path / "run") == before
    assert main(["pretrain", *args, LONGER, "force=true"]) == 0
    (told,) = summary(tmp_path / "run")["changes"]
    assert "data: pretrain: 16 samples of other content" in told
    shutil.rmtree(root)
    assert main(["pretrain", *args, LONGER]) == 0  # finished: nothing is read


def test_a_change_that_is_killed_before_its_settings_are_written_is_kept_and_told_once(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    for killed in (True, False):
        begun = beginning.Beginning(tmp_path, waits=True, forced=True, changes=["a: 1, now 2"])

        def write_settings(killed=killed):
            if killed:
                raise KeyboardInterrupt

        begun.do(write_settings)
        with suppress(KeyboardInterrupt):
            begun.begin()
    assert json.loads((tmp_path / "summary.json").read_text())["changes"] == [
        "at step 0: a: 1, now 2 (before: replaced/1)"
    ]
    assert sorted(path.name for path in (tmp_path / "replaced").iterdir()) == ["1"]


@pytest.mark.parametrize(("own", "first"), [(True, False), (False, True)])
def test_all_ranks_wait_for_the_first_step_or_none(own, first, tmp_path, monkeypatch):
    """A rank that starts later finds the settings that the first one has written, and must not look at losses alone."""
    monkeypatch.setattr(beginning.distributed, "broadcast_object", lambda value: first)
    begun, checks, done = beginning.Beginning(tmp_path, waits=own), [], []
    begun.do(lambda: done.append(True))
    guard = SimpleNamespace(check=checks.append)
    callback = beginning.BeginAfterFirstStep(begun, guard)
    trainer = SimpleNamespace(accumulate_grad_batches=1, is_last_batch=False, is_global_zero=False)
    callback.setup(trainer, None, "fit")
    assert done == [True]
    for batch_idx in range(2):
        callback.on_train_batch_end(trainer, None, None, {}, batch_idx)
    assert len(checks) == first
    assert begun.done
