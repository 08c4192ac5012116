"""What a run prints of its way: lines in a log file, a bar in a terminal."""

import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from engine.tiny import Noise, Tiny, TinyEncoder, fit, trainer
from lightning.pytorch.callbacks import Callback

from ssl_lab.cli.main import main
from ssl_lab.engine.callbacks import progress

SMALL = ["method=simclr", "trainer=cpu", "data.batch_size=512", "encoder.widths=[8]", "evaluation=none"]


def pretrain(run_dir, *args):
    assert main(["pretrain", *SMALL, f"run_dir={run_dir}", "pictures_every_n_epochs=null", *args]) == 0


def test_without_a_terminal_lines_tell_how_far_a_run_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_FIRST_LINE_SEC", 0.0)
    monkeypatch.setattr(progress, "_LINE_SEC", 0.0)
    pretrain(tmp_path / "run", "trainer.max_epochs=2")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    form = r"epoch ([12])/2, step (\d+)/(\d+), loss [\d.]+, [\d,]+ samples/s(, \d+ s left)?"
    found = [re.fullmatch(form, line) for line in lines]
    assert all(found), lines
    total = int(found[0][3])
    assert [int(match[2]) for match in found] == list(range(1, total + 1))
    assert "left" in lines[0] and "left" not in lines[-1]
    pretrain(tmp_path / "one", "trainer.max_epochs=-1", "trainer.max_steps=1")
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")][
        -1
    ] == "epoch 1"


def test_the_last_line_does_not_count_the_evaluation_after_the_last_step(tmp_path, monkeypatch, capsys):
    now = itertools.count()
    waited = []

    def evaluate(self, method, protocols):
        waited.append(10**6)
        return {}

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now) + sum(waited)))
    monkeypatch.setattr("ssl_lab.engine.callbacks.evaluation.EvaluateDuringTraining.evaluate", evaluate)
    pretrain(tmp_path / "run", "trainer.max_epochs=1", "evaluation=label_free")
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")][-1]
    assert waited and int(re.search(r"([\d,]+) samples/s", last)[1].replace(",", "")) > 10


def test_a_short_run_prints_one_line_and_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys):
    pretrain(tmp_path / "lines", "trainer.max_epochs=1")
    assert capsys.readouterr().out.count("epoch ") == 1
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_BAR_SEC", 0.0)
    pretrain(tmp_path / "bar", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    out = capsys.readouterr().out
    assert not re.search("^epoch .*step", out, re.MULTILINE)
    bar = re.split("[\r\n]", out[: out.index("Trained in")])
    shown = [re.sub(r"\|.*?\|", "", line) for line in bar if line.startswith("epoch 1/1")]
    assert any(re.search(r"loss=[\d.]+, samples/s=[\d,]+, left=\d+ s", line) for line in shown), bar
    assert max(map(len, shown)) < 75, "with a bar of five columns it fits 80"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7201, "2 h"), (4e5, "5 d")]
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


class Clock:
    """A time that training alone moves, so that steps take what a test says."""

    def __init__(self, steps):
        self.now, self.steps = 0.0, iter(steps)

    def monotonic(self):
        return self.now


class Ticks(Callback):
    """Moves the clock by the time of each step, and by much more between epochs."""

    def __init__(self, clock, pause=1000.0):
        self.clock, self.pause = clock, pause

    def on_train_batch_end(self, *args):
        self.clock.now += next(self.clock.steps)

    def on_train_epoch_end(self, *args):
        self.clock.now += self.pause


def expected(folder, monkeypatch, capsys, seconds, *, epochs, **settings):
    """What is printed of a training with 2 steps an epoch, each of which takes some seconds."""
    clock = Clock(seconds)
    monkeypatch.setattr(progress, "time", clock)
    data = Noise(num_samples=32)
    told = progress.ExpectedTime(**settings)
    fit(trainer(folder, Ticks(clock), told, epochs=epochs), Tiny(TinyEncoder(data.spec), repel=1.0), data)
    return [line for line in capsys.readouterr().out.splitlines() if "takes about" in line]


def test_a_run_says_once_how_long_it_takes_without_its_first_step_and_pauses(tmp_path, monkeypatch, capsys):
    (line,) = expected(tmp_path, monkeypatch, capsys, [50.0, *[2.0] * 39], epochs=20)
    threads = r"\d+ CPU threads?"
    assert re.fullmatch(rf"Training takes about 80 s: 40 steps of 2\.0 s on {threads}, without evaluations\.", line), (
        line
    )
    (line,) = expected(tmp_path, monkeypatch, capsys, [9.0, *[0.25] * 59], epochs=30, evaluates=False)
    assert re.fullmatch(rf"Training takes about 15 s: 60 steps of 250 ms on {threads}\.", line), line


def test_slow_steps_are_told_after_the_second_and_short_trainings_say_nothing(tmp_path, monkeypatch, capsys):
    (line,) = expected(tmp_path, monkeypatch, capsys, [9.0, 6.0, *[600.0] * 4], epochs=3)
    assert line.startswith("Training takes about 36 s: 6 steps of 6.0 s")
    assert not expected(tmp_path, monkeypatch, capsys, [9.0, *[0.5] * 9], epochs=5)


def test_a_resumed_run_says_how_long_the_rest_takes(tmp_path, monkeypatch, capsys):
    told = progress.ExpectedTime()
    stub = SimpleNamespace(
        fit_loop=SimpleNamespace(total_batch_idx=59),
        global_step=60,
        max_steps=-1,
        max_epochs=10,
        num_training_batches=10,
        is_global_zero=True,
        world_size=2,
        progress_bar_callback=None,
    )
    module = SimpleNamespace(device=torch.device("cpu"))
    clock = Clock([])
    monkeypatch.setattr(progress, "time", clock)
    told.on_train_start(stub, module)
    for _ in range(2):
        stub.fit_loop.total_batch_idx += 1
        clock.now += 5.0
        told.on_train_batch_end(stub, module, None, {}, 0)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"The rest of training takes about 3 min: 40 steps of 5\.0 s on 2 x \d+ CPU thread", line), line
    stub.is_global_zero = False
    told.on_train_start(stub, module)
    told.on_train_batch_end(stub, module, None, {}, 0)
    assert not capsys.readouterr().out
