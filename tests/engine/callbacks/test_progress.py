"""What a run prints of its way: lines in a log file, a bar in a terminal."""

import itertools
import re
import sys
from types import SimpleNamespace

import pytest

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
