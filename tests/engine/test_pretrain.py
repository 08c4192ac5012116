"""Runs by the command: resume, signals, ranks, and what a bad loss leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder, trainer
from forked import on_ranks, run_main, start

from ssl_lab.cli.main import main
from ssl_lab.data.image.digits import Digits
from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.checks import check_batch
from ssl_lab.engine.judge import check_is_measurable
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.evaluation.geometry.label_free import FeatureStd, RankMe, Uniformity
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.methods.simclr import SimCLR

SSL_LAB = [sys.executable, "-m", "ssl_lab.cli.main"]
SMALL = [
    "pretrain",
    "data.batch_size=64",
    "encoder.widths=[8,16]",
    "views@method.views=digits",
    "method.hidden_dim=16",
    "evaluation=none",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
]


def ssl_lab(*args, cwd, **kwargs):
    return subprocess.run([*SSL_LAB, *args], capture_output=True, text=True, timeout=300, cwd=cwd, **kwargs)


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def weights(run_dir):
    return checkpoint(run_dir)["state_dict"]


def wait_for(path, process, needle="", seconds=120):
    start = time.monotonic()
    while not (path.is_file() and needle in path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < seconds, f"{path} never came"
        time.sleep(0.05)


def assert_same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


TO_STOP = ["trainer.max_epochs=3", "callbacks=online_probes"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped."""
    run_dir = tmp_path_factory.mktemp("whole") / "whole"
    assert main([*SMALL, *TO_STOP, f"run_dir={run_dir}"]) == 0
    return run_dir


@pytest.mark.parametrize("batches_before", [5, 36])
def test_a_stopped_and_resumed_run_ends_with_the_same_weights(tmp_path, whole, batches_before, monkeypatch, capsys):
    """Interrupted in the middle of an epoch and after several epochs; an epoch has 18 batches. Probes go on too."""
    step, broken = SimCLR.training_step, tmp_path / "broken"

    def stopped(self, batch, batch_idx):
        if self.trainer.fit_loop.total_batch_idx + 1 == batches_before:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SimCLR, "training_step", stopped)
    assert main([*SMALL, *TO_STOP, f"run_dir={broken}"]) == 1
    errors = capsys.readouterr().err
    assert "SIGTERM stopped the run" in errors and "Traceback" not in errors
    summary = json.loads((broken / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("preempted", batches_before)

    monkeypatch.undo()
    assert main([*SMALL, *TO_STOP, f"run_dir={broken}", "ckpt=last"]) == 0
    expected, found = weights(whole), weights(broken)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    probes = [checkpoint(path)["callbacks"]["OnlineProbes"] for path in (whole, broken)]
    assert_same(*probes)
    steps = [line.split(",")[0] for line in (broken / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int)


def test_a_non_finite_loss_names_the_step_and_keeps_the_good_checkpoint(tmp_path, capsys):
    run = [*SMALL, f"run_dir={tmp_path / 'run'}"]
    assert main([*run, "trainer.max_epochs=1"]) == 0
    good = weights(tmp_path / "run")
    again = ["trainer.max_epochs=3", "method.temperature=1e-40", "save_every_n_minutes=0", "force=true"]
    capsys.readouterr()
    assert main([*run, *again]) == 1
    errors = capsys.readouterr().err
    assert "became NaN or infinite at step" in errors
    assert "batch index" in errors
    assert "last good checkpoint" in errors
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "finished", "a change whose first step fails leaves the run as it was"
    assert (tmp_path / "run/report.html").is_file()
    kept = weights(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert good.keys() == kept.keys()


def test_data_without_labels_is_judged_during_and_after_training(tmp_path):
    data = ArrayImages(labels=False)
    protocols = [KNN(), RankMe(), Uniformity(), FeatureStd()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message="ArrayImages has no labels, which KNN need")
        metrics = pretrain(
            Tiny(TinyEncoder(data.spec), repel=1.0), data, trainer(tmp_path), evaluation=Evaluation(protocols)
        )
    names = {"rankme/rank", "uniformity/loss", "feature_std/mean"}
    assert {name.split("/", 1)[1] for name in metrics if name.startswith("eval/")} == names
    assert {name.split("/", 1)[1] for name in metrics if name.startswith("test/")} == names
    table = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["raw pixels", "random encoder", "Tiny encoder"]
    assert all(row["metrics"].keys() == names for row in table["rows"])
    assert table["measured"][0]["baselines"] == {"raw pixels": "input", "random encoder": "encoder"}


def test_two_ranks_share_one_run_directory_and_the_report_of_the_first(tmp_path):
    """GAN, which steps its optimizers itself, under ddp on the CPU."""
    settings = ["pretrain", "method=gan", "encoder=dcgan", "encoder.width=8", "evaluation=features", "trainer=cpu"]
    settings += ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1", "data.batch_size=32"]
    on_ranks(2, run_main, [*settings, f"run_dir={tmp_path / 'gan'}"])
    summary = json.loads((tmp_path / "gan/summary.json").read_text())
    assert summary["status"] == "finished"
    assert (tmp_path / "gan/evaluation.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["gan"]


def test_a_signal_to_one_rank_saves_on_all_and_the_run_goes_on(tmp_path):
    """Lightning starts the second rank, in the first life of the run and in the next."""
    settings = [*SMALL, "data.batch_size=32", "trainer.devices=2", "trainer.strategy=ddp", "run_dir=run"]
    settings += ["evaluation=features"]
    process = subprocess.Popen(
        [*SSL_LAB, *settings, "trainer.max_epochs=200"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "run/metrics.csv", process, "\n5,")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "SIGTERM stopped the run" in errors
    stopped_at = json.loads((tmp_path / "run/summary.json").read_text())
    assert stopped_at["status"] == "preempted"
    epochs = stopped_at["step"] // 18 + 1
    done = ssl_lab(*settings, f"trainer.max_epochs={epochs}", "ckpt=last", "force=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", 18 * epochs)
    assert (tmp_path / "run/evaluation.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_stopping_a_sweep_stops_all_of_it(tmp_path):
    settings = [*SMALL, "trainer.max_epochs=200", "-m", "seed=0,1", "sweep_dir=sweep"]
    process = start(*settings, cwd=tmp_path)
    began = time.monotonic()
    while not (trials := list(tmp_path.glob("sweep/*/metrics.csv"))):
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.05)
    wait_for(trials[0], process, "\n5,")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "SIGTERM stopped the run" in errors
    assert len(list(tmp_path.glob("sweep/*/metrics.csv"))) == 1


def test_training_without_a_validation_split_works(tmp_path):
    assert main([*SMALL, "data.val_fraction=0", "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


def test_a_sweep_that_would_start_its_own_ranks_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "-m", "seed=1,2", "trainer.devices=2", "trainer.strategy=ddp"]) == 1
    assert "A sweep in this process cannot start 2 ranks" in capsys.readouterr().err


class Contrasts(Tiny):
    coupled_by = "samples are contrasted with each other"
    min_samples = 4


def test_a_step_has_as_many_samples_as_the_objective_needs():
    encoder = TinyEncoder(ArrayImages().spec)
    check_batch(Tiny(encoder), 1)
    check_batch(Contrasts(encoder), 4)
    with pytest.raises(ValueError, match="Cannot train Contrasts on 3 samples? a step: samples are contrasted"):
        check_batch(Contrasts(encoder), 3)
    normalised = Tiny(encoder)
    normalised.head = torch.nn.BatchNorm1d(8)
    check_batch(normalised, 2)
    with pytest.raises(ValueError, match="on 1 sample a step: batch normalisation takes its statistics"):
        check_batch(normalised, 1)


def test_the_samples_of_a_step_are_those_of_all_ranks(tmp_path, monkeypatch):
    def reached(*args, **settings):
        raise KeyboardInterrupt

    data = ArrayImages(batch_size=2)
    method = Contrasts(TinyEncoder(data.spec))
    with pytest.raises(ValueError, match="on 2 samples a step.* to 4 or more"):
        pretrain(method, data, trainer(tmp_path))
    fit = trainer(tmp_path)
    monkeypatch.setattr(type(fit), "world_size", 2)
    monkeypatch.setattr(fit, "fit", reached)
    with pytest.raises(KeyboardInterrupt):
        pretrain(method, data, fit)


def test_without_a_validation_split_the_end_is_judged_on_test_and_the_rest_is_told(tmp_path):
    """All samples outside of test train: the 50,000 of papers for CIFAR-10 and these 1,348."""
    data = Digits(val_fraction=0, batch_size=512)
    assert len(data.columns("train")["image"]) == 1348
    method = Tiny(TinyEncoder(data.spec))
    said = (
        "no val split: nothing is evaluated or drawn during training, and the objective eval/knn/top1 is not measured"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluation = Evaluation([KNN()], objective="eval/knn/top1")
        metrics = pretrain(method, data, trainer(tmp_path), evaluation=evaluation)
    assert sum(said in str(warning.message) for warning in caught) == 1
    assert "test/knn/top1" in metrics and not any(name.startswith("eval/") for name in metrics)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["objective"] == {"name": "eval/knn/top1", "value": None}
    with pytest.raises(ValueError, match=r"objective=eval/knn/top1.*val split.*data\.val_fraction=0\.1"):
        check_is_measurable("eval/knn/top1", [KNN()], data)
    check_is_measurable("eval/knn/top1", [KNN()], Digits())
    check_is_measurable("test/knn/top1", [KNN()], data)
