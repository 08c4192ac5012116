"""The folder of docs/howto_own_modality.md: every command works with a modality that the package does not know."""

import csv
import os
import re
import signal
import sys

import pyarrow.parquet as pq
import pytest
from pages import ROOT, own_files

from ssl_lab.cli.main import main
from ssl_lab.engine.callbacks.throughput import Throughput
from ssl_lab.runs.directory import read_json

FILES = own_files([ROOT / "docs/howto_own_modality.md"])
PARTS = [
    *("data=tones", "encoder=wave_net", "encoder.widths=[8,16]", "data.num_train=256", "data.batch_size=64"),
    *("evaluation=pitch", "evaluation.few_label=null", "evaluation.linear=null", "trainer=cpu"),
]
VIEWS = "views@method.views=waves"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder, where the command is started in this one process."""
    folder = tmp_path_factory.mktemp("own")
    for name, code in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    for name in set(sys.modules) - known:
        if (folder / f"{name}.py").is_file():
            del sys.modules[name]


def command(capsys, *args, rc=0):
    """What the command says."""
    assert main(list(args)) == rc, capsys.readouterr().err
    said = capsys.readouterr()
    assert "Warning" not in said.err, said.err
    return said.out + said.err


@pytest.fixture(scope="module")
def run(folder):
    """A run that Ctrl-C stopped after its first epoch, and that went on."""
    saw = Throughput.on_train_batch_end

    def interrupt(self, trainer, *args):
        saw(self, trainer, *args)
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Throughput, "on_train_batch_end", interrupt)
        args = ["method=simclr", *PARTS, VIEWS, "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
        assert main(["pretrain", *args, "evaluate_every_n_epochs=1", "run_dir=runs/simclr"]) == 1
    assert read_json(folder / "runs/simclr/summary.json")["status"] == "interrupted"
    assert main(["pretrain", "run=runs/simclr", "trust=true"]) == 0
    return folder / "runs/simclr"


def test_its_checks_pass(folder, monkeypatch):
    names = {}
    monkeypatch.syspath_prepend(folder)
    exec((folder / "test_waves.py").read_text(), names)
    names["test_parts"]()
    names["test_they_train"]()


def test_a_run_goes_on_after_ctrl_c_and_is_judged(run, capsys):
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == sorted(set(steps)) and max(steps) == 7
    said = command(capsys, "evaluate", "run=runs/simclr", "evaluation=pitch", "evaluation.few_label=null", "trust=true")
    table = said[said.index("Pitch of the nearest neighbour") :]
    assert re.search("within a step, % ↑ +error, steps ↓", table)
    assert [line.split("  ")[0] for line in table.splitlines()[3:6]] == [
        *("raw waveforms", "random encoder", "SimCLR encoder")
    ]
    assert read_json(run / "summary.json")["metrics"]["test/pitch/near"] > 0.3


def test_pages_have_its_titles_and_pictures(run, folder, capsys):
    """In percent, with arrows, and without a word of images."""
    command(capsys, "report", "runs/simclr")
    command(capsys, "leaderboard", "runs", "--out", "board")
    command(capsys, "dashboard", "runs", "--out", "site")
    pages = [run / "report.html", next((folder / "board").glob("*.html")), next((folder / "board").glob("*.md"))]
    for page in pages:
        text = page.read_text().replace("\N{NO-BREAK SPACE}", " ")
        for words in ("Pitch of the nearest neighbour", "within a step, % ↑", "error, steps ↓", "raw waveforms"):
            assert words in text, f"{page.name} lacks {words}"
        assert "raw pixels" not in text and "Other metrics" not in text
    site = "".join(path.read_text() for path in (folder / "site").rglob("*") if path.suffix in (".js", ".json"))
    assert "within a step, %" in site and "raw pixels" not in site
    assert list((run / "pictures").rglob("views*"))


def test_features_leave_as_a_table_and_as_a_graph(run, folder, capsys, monkeypatch):
    command(capsys, "embed", "run=runs/simclr", "out=x.parquet", "splits=[test]", "trust=true")
    features = pq.read_table("x.parquet").column("features")
    assert len(features) == 300 and len(features[0]) == 16
    assert "WaveNet" in command(capsys, "export", "run=runs/simclr", "format=onnx", "out=onnx", "trust=true")
    card = (folder / "onnx/README.md").read_text()
    assert "your own waveforms" in card and "raw pixels" not in card
    monkeypatch.chdir(folder / "onnx")
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["features"].shape == (2, 16)


def test_bench_and_finetune(run, folder, capsys):
    said = command(capsys, "bench", "method=byol", *PARTS, VIEWS, "num_steps=2", "warmup_steps=1")
    assert "BYOL on Tones (256,)" in said and "encoder alone" in said
    data = ["data=tones", "data.num_train=256", "data.batch_size=64", "trainer=cpu", "trainer.max_epochs=1"]
    said = command(capsys, "finetune", "run=runs/simclr", *data, "task=wave_classification", "trust=true")
    assert "Classification on Tones" in said and "accuracy, % ↑" in said
