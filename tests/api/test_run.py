"""From data in Python to a run, and what a run can do."""

import json
import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from forked import ssl_lab as command
from hydra.core.global_hydra import GlobalHydra

import ssl_lab
from ssl_lab.cli.main import main
from ssl_lab.data.image.digits import Digits

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
IMAGES = RNG.integers(0, 100, (60, 8, 8, 1), dtype=np.uint8)
IMAGES[LABELS == 0, :4] += 120
IMAGES[LABELS == 1, 4:] += 120
TEXTS = [f"film number {k} is {'good' if k % 2 else 'bad'}" for k in range(60)]
SMALL = {"trainer": "smoke", "data__batch_size": 8}
TINY = {**SMALL, "encoder": {"widths": [4, 8]}, "method__hidden_dim": 8, "pictures_every_n_epochs": None}


class OwnDigits(Digits):
    """Data of a user's, in a file that can be imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield Path.cwd()


@pytest.fixture(scope="module")
def run(folder):
    return ssl_lab.pretrain(IMAGES, "simclr", labels=LABELS, run_dir="images", **TINY)


def test_a_run_holds_what_the_command_writes_and_says_what_it_is(run):
    assert {"config.yaml", "overrides.yaml", "evaluation.json", "report.html"} <= {
        path.name for path in run.dir.iterdir()
    }
    assert list(run.results) == ["raw pixels", "random encoder", "SimCLR encoder"]
    assert 0 <= run.results["SimCLR encoder"]["knn/top1"] <= 1
    assert run.config["data"]["_target_"] == "ssl_lab.data.image.arrays.ImageArrays"
    assert "SimCLR on images finished, step 4" in repr(run) and "raw pixels" in repr(run)
    assert run.verdict in repr(run)
    assert "findings" in json.loads((run.dir / "summary.json").read_text())["verdict"]
    assert run.report() == run.dir / "report.html"


def test_features_have_a_row_for_each_sample_in_order(run):
    features = run.embed(IMAGES)
    assert features.shape == (60, 8) and features.dtype == np.float32
    np.testing.assert_allclose(run.embed(IMAGES[::-1].copy())[::-1], features, atol=1e-5)
    np.testing.assert_allclose(run.embed(list(IMAGES[:3]))[2], features[2], atol=1e-5)
    np.testing.assert_allclose(run.embed(np.repeat(IMAGES, 3, -1)), features, atol=1e-5)  # read as grey, as files are
    assert run.embed(IMAGES[:2].repeat(2, 1).repeat(2, 2)).shape == (2, 8)
    with pytest.raises(ValueError, match="Cannot embed texts: the run reads images"):
        run.embed(TEXTS)


def test_neighbours_are_those_of_the_features(run):
    features = run.embed(IMAGES)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows = run.neighbours(IMAGES[:2], IMAGES[2:], k=3)
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2
    cosines = np.sort(features[:2] @ features[2:].T, axis=1)[:, :-4:-1]
    np.testing.assert_allclose([row["similarity"] for row in rows], cosines.ravel(), atol=1e-5)
    own = run.neighbours(IMAGES[1:3], IMAGES, k=1)
    assert [row["name"] for row in own] == ["1", "2"], "arrays are compared whatever their numbers are"
    with pytest.raises(ValueError, match="Cannot find 0 neighbours"):
        run.neighbours(IMAGES[:1], IMAGES, k=0)


def test_another_process_reads_the_same_data_and_judges_the_run_again(run):
    before = dict(run.results)
    judged = command("evaluate", "run=images")
    assert judged.returncode == 0 and "images: train 49, val 5, test 6 images; 2 classes; val (10%)" in judged.stdout
    opened = ssl_lab.open_run("images")
    assert opened.results == before and len(opened.data.columns("test")["image"]) == 6


def test_the_same_call_finds_the_run_and_a_longer_one_resumes_it(folder, capsys):
    first = ssl_lab.pretrain(IMAGES / 255, labels=LABELS, run_dir="longer", evaluation="none", **TINY)
    again = ssl_lab.pretrain(IMAGES / 255, labels=LABELS, run_dir="longer", evaluation="none", **TINY)
    assert again.dir == first.dir and "has finished before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a run with other settings: trainer.max_steps: 4, now 6"):
        ssl_lab.pretrain(IMAGES / 255, labels=LABELS, run_dir="longer", steps=6, epochs=100, evaluation="none", **TINY)
    longer = ssl_lab.pretrain(run="longer", steps=6, epochs=100, force=True)
    assert "resumed from last.ckpt" in capsys.readouterr().out and "step 6" in repr(longer)


def test_a_run_is_judged_on_other_data_and_carried_to_labels(run):
    rows = run.evaluate({"train": IMAGES[:40], "test": IMAGES[40:]}, evaluation="label_free")
    assert list(rows) == ["raw pixels", "random encoder", "SimCLR encoder"] and "RankMe" in repr(rows)
    tuned = run.finetune(IMAGES, LABELS, run_dir="tuned", **SMALL)
    assert tuned.dir == Path("tuned/pretrained/seed_0").absolute()
    assert set(tuned.results["fine-tuned encoder"]) >= {"finetune/accuracy"}
    said = tuned.predict(IMAGES[:3])
    assert [row["prediction"] in ("0", "1") for row in said] == [True] * 3
    assert said[1]["probabilities"] == pytest.approx(tuned.predict([IMAGES[1]])[0]["probabilities"], abs=1e-4)
    with pytest.raises(ValueError, match="no head of a task yet"):
        run.predict(IMAGES[:3])
    assert (run.export("exported", format="torch_export") / "model.pt2").is_file()


def test_texts_take_the_networks_of_their_method(folder):
    run = ssl_lab.pretrain(
        TEXTS, run_dir="texts", encoder="bert_tiny", method="mlm", evaluation="none", data__vocab_size=60,
        data__max_length=16, **SMALL, pictures_every_n_epochs=None,
    )  # fmt: skip
    features = run.embed(TEXTS)
    assert len(features) == 60
    np.testing.assert_allclose(run.embed(TEXTS[5:7]), features[5:7], atol=1e-4)
    with pytest.raises(ValueError, match="text 1: it is blank"):
        run.embed(["a film", " "])


def test_data_of_ones_own_class_are_recorded_by_its_name(folder):
    settings = {**TINY, "data__batch_size": 64, "evaluation": "none"}
    run = ssl_lab.pretrain(OwnDigits(batch_size=64), run_dir="own", **settings)
    elsewhere = ssl_lab.pretrain(OwnDigits(batch_size=64), **settings)
    assert elsewhere.dir.parent == folder / "runs/owndigits"
    assert run.config["data"]["_target_"].endswith("OwnDigits") and run.data.title == "OwnDigits"
    with pytest.raises(ValueError, match="Nothing was imported"):
        ssl_lab.open_run("own")
    assert ssl_lab.open_run("own", trust=True).data.title == "OwnDigits"


@pytest.mark.parametrize(
    ("settings", "override"),
    [
        ({"optim__lrr": 1}, "optim.lrr=1"),
        ({"optim": {"lr": "high"}}, "optim.lr=high"),
        ({"method": "simclrr"}, "method=simclrr"),
        ({"temprature": 0.1}, "temprature=0.1"),
        ({"trainer.max_epoch": 3}, "trainer.max_epoch=3"),
    ],
)
def test_a_wrong_setting_gets_the_message_of_the_command(settings, override, folder, capsys):
    with pytest.raises(ValueError) as error:
        ssl_lab.pretrain("digits", run_dir="wrong", **settings)
    assert main(["pretrain", "data=digits", "run_dir=wrong", override]) == 1
    assert capsys.readouterr().err == f"ssl-lab: {error.value}\n"


def test_errors_of_data_and_settings_come_without_the_calls_in_between(folder, monkeypatch):
    monkeypatch.delenv("SSL_LAB_TRACEBACK", raising=False)
    with pytest.raises(ValueError, match="ConvNet takes images, but the data is texts") as error:
        ssl_lab.pretrain(TEXTS, "simclr", run_dir="wrong", data__vocab_size=60)
    assert len(error.traceback) <= 6 and error.value.__cause__ is None and error.value.__suppress_context__


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        ((IMAGES, torch.nn.Linear(2, 2)), {}, "Cannot use Linear as method: a method is a name"),
        ((torch.nn.Linear(2, 2), IMAGES), {}, "a Linear: it is a network. Give the data first"),
        ((IMAGES,), {"optim": torch.optim.Adam}, "Cannot set optim to the class Adam: .*optim='adamw'"),
        ((IMAGES,), {"encoder": torch.nn.Linear(2, 2)}, "Cannot set encoder to an object of Linear"),
        ((IMAGES,), {"epochs": 1, "trainer__max_epochs": 2}, "both epochs= and trainer.max_epochs="),
        ((), {"labels": LABELS}, "Cannot use labels= without data"),
        ((IMAGES,), {"--cfg": "job"}, "not the name of a setting"),
        ((IMAGES[:1],), {"run_dir": "one"}, "from 1 training sample"),
        (("digits",), {"run": "nowhere"}, "nowhere is not a run directory"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(arguments, settings, told, folder):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        ssl_lab.pretrain(*arguments, **settings)


def test_the_process_is_left_as_it_was(folder):
    matplotlib.rcParams["lines.linewidth"] = 3.21
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    lightning = logging.getLogger("lightning.pytorch")

    def state():
        handler, levels = signal.getsignal(signal.SIGTERM), (lightning.level, logging.getLogger().level)
        return list(warnings.filters), handler, list(sys.argv), dict(os.environ), levels, torch.get_num_threads()

    before = state()
    ssl_lab.pretrain(IMAGES, run_dir="left", evaluation="none", **TINY)
    assert state() == before
    assert matplotlib.rcParams["lines.linewidth"] == 3.21 and not GlobalHydra.instance().is_initialized()
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    matplotlib.rcdefaults()


def test_calls_within_a_second_have_directories_of_their_own(folder):
    first, second = (ssl_lab.pretrain(IMAGES, evaluation="none", seed=seed, steps=1, **TINY) for seed in (0, 1))
    assert first.dir != second.dir and first.dir.parent == second.dir.parent == folder / "runs/simclr_arrays"
    assert "SSL_LAB_RUN_NAME" not in os.environ


def test_what_is_refused_while_it_is_built_leaves_no_directory(folder):
    before = sorted(Path("runs").rglob("*"))
    for wrong in {"encoder__widths": []}, {"method__temperature": -1}, {"data__batch_size": 800}:
        with pytest.raises(ValueError):
            ssl_lab.pretrain(IMAGES, **{"trainer": "smoke", "data__batch_size": 8, **wrong})
        with pytest.raises(ValueError):
            ssl_lab.pretrain(IMAGES, **{"trainer": "smoke", "data__batch_size": 8, "run_dir": "refused", **wrong})
    assert sorted(Path("runs").rglob("*")) == before and not Path("refused").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(folder, monkeypatch):
    from ssl_lab.methods.simclr import SimCLR

    step = SimCLR.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SimCLR, "training_step", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match="SIGINT stopped the run at step 3.* Continue with ssl-lab pretrain run="
    ):
        ssl_lab.pretrain(IMAGES, run_dir="stopped", evaluation="none", **TINY)
    monkeypatch.undo()
    resumed = ssl_lab.pretrain(IMAGES, run_dir="stopped", evaluation="none", **TINY)
    whole = ssl_lab.pretrain(IMAGES, run_dir="unstopped", evaluation="none", **TINY)
    states = [each.method.state_dict() for each in (resumed, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_lists_are_plain_and_readable():
    assert "contrast two views" in ssl_lab.list()["methods"]["simclr"]
    assert list(ssl_lab.list("tasks", "encoders")) == ["tasks", "encoders"]
    assert "methods  (method=)\n" in repr(ssl_lab.list())
    with pytest.raises(ValueError, match="There is no list of 'method'"):
        ssl_lab.list("method")
