"""Protocols with data of their own, by the command: settings, refusals, evaluation of a run, and what shows it."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_lab.cli.build import build_data, build_protocols
from ssl_lab.cli.data_of_run import data_beside
from ssl_lab.cli.main import main
from ssl_lab.cli.trust.targets import trusting
from ssl_lab.data.text.tokenizer import tokenizer_digest
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.leaderboard import leaderboard
from ssl_lab.report.leaderboard_files import as_markdown

OWN = "own_protocol_faint"
SMALL = [
    *("method=vae", "data=digits", "data.batch_size=400", "encoder.widths=[8,16]", "method.latent_dim=8"),
    *("trainer=cpu", "trainer.max_epochs=3", "evaluate_every_n_epochs=2", "pictures_every_n_epochs=null"),
]
CODE = """
from ssl_lab.evaluation.protocol import LabelFreeProtocol
from ssl_lab.metrics import Metric, Table

class Faint(LabelFreeProtocol):
    metrics = {"faint/mean": Metric(column="mean", table=Table(key="faint", title="Faintness"))}

    def score(self, x):
        return {"faint/mean": float(x.abs().mean())}
"""
SETTINGS = f"""# Rank on the run's data, neighbours and somebody's protocol on digits with few labels
defaults: [/data@few.data: digits, _self_]
rankme: {{_target_: ssl_lab.evaluation.geometry.label_free.RankMe}}
few:
  _target_: ssl_lab.evaluation.on_data.OnData
  protocol: {{_target_: ssl_lab.evaluation.probes.knn.KNN}}
  name: few
  data: {{label_fraction: 0.2}}
mine:
  _target_: ssl_lab.evaluation.on_data.OnData
  protocol: {{_target_: {OWN}.Faint}}
  name: few
  data: ${{evaluation.few.data}}
  every_n_epochs: 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the settings, code and a run of somebody."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "conf/evaluation").mkdir(parents=True)
    (folder / "conf/evaluation/two.yaml").write_text(SETTINGS)
    (folder / f"{OWN}.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [path for path in sys.path if path])
        assert main(["pretrain", "evaluation=two", *SMALL, "run_dir=runs/a"]) == 0
        yield folder
    sys.modules.pop(OWN, None)


def evaluation(folder, name="evaluation.json"):
    return json.loads((folder / "runs/a" / name).read_text())


def test_the_run_is_judged_on_both_data_beside_baselines(folder):
    found = evaluation(folder)
    assert [record["settings"].get("on_data") for record in found["measured"]] == ["few", None, "few"]
    data = [record["data"] for record in found["measured"]]
    assert data[0] == data[2] and data[0]["scored"] == data[1]["scored"] and data[0]["train"] != data[1]["train"]
    for row in found["rows"]:
        assert {"rankme/rank", "few/knn/top1", "few/faint/mean"} <= row["metrics"].keys()
    rows = (folder / "runs/a/metrics.csv").read_text()
    assert "eval/few/knn/top1" in rows.splitlines()[0]
    curves = json.loads((folder / "runs/a/metrics.json").read_text())["metrics"]
    assert curves["few/knn/top1"]["column"] == "kNN on Digits" and "few/faint/mean" in curves


def test_it_is_shown_with_the_title_of_the_data(folder):
    page = (folder / "runs/a/report.html").read_text()
    assert "Digits: Faintness" in page and "kNN on Digits" in page
    text = as_markdown(leaderboard([folder / "runs"]))
    assert "Digits: Faintness" in text and "| kNN on Digits ↑ |" in text
    for protocols, columns in ((["few"], 2), (["knn"], 1), (["rankme"], 1)):
        boards = leaderboard([folder / "runs"], protocols=protocols).boards
        assert sum(len(board.table.columns) for board in boards) == columns, protocols
    names = RunIndex([folder / "runs"]).as_json()["described"]
    assert names["test/few/knn/top1"]["label"] == names["eval/few/knn/top1"]["label"] == "kNN on Digits"


def test_a_run_directory_is_data_and_code_needs_trust(folder, capsys):
    assert main(["evaluate", "run=runs/a"]) == 1
    assert f"evaluation.mine.protocol._target_ names {OWN}.Faint" in capsys.readouterr().err
    before = evaluation(folder)
    assert main(["evaluate", "run=runs/a", "trust=true"]) == 0
    after = evaluation(folder)
    assert after["rows"] == before["rows"] and len(after["measured"]) == len(before["measured"])
    assert main(["evaluate", "run=runs/a", "trust=true", "data=digits", "data.val_fraction=0.2", "out=other.json"]) == 0
    (few, rank, _) = json.loads((folder / "other.json").read_text())["measured"]
    assert rank["data"]["train"] != before["measured"][1]["data"]["train"]
    assert few["data"] == before["measured"][0]["data"] and few["metrics"] == before["measured"][0]["metrics"]
    assert main(["pretrain", "run=runs/a", "trust=true"]) == 0
    assert "has finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["data@evaluation.few.data=shapes", "~evaluation.few.data.label_fraction", "~evaluation.mine"],
            "Cannot run KNN on few (Shapes): the encoder reads images of shape (1, 8, 8), found images of shape (3, 32, 32)",
        ),
        (["evaluation.few.data.seed=3"], "evaluation.few.data.seed=3 has no effect"),
        (["+evaluation.few.every_n_epochs=0"], "Cannot use every_n_epochs=0 of OnData of KNN. Set it to 1 or more"),
        (["+evaluation.few.every_n_epochs=2.5"], "few.every_n_epochs should be a whole number or null, found 2.5"),
        (["evaluation.few.protocol=null"], "OnData needs a protocol, but evaluation.few.protocol is None"),
        (["evaluation.few.name=X"], "Cannot begin names of metrics with name='X'"),
        (["evaluation.few.data=null", "evaluation.mine=null"], "OnData of KNN has no effect"),
        (["+evaluation.few.data.root=x"], "Digits has no setting 'root', which evaluation.few.data.root sets"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_judged_ends_before_the_run_begins(words, told, folder, capsys):
    assert main(["pretrain", "evaluation=two", *SMALL, *words, "run_dir=runs/refused"]) == 1
    err = capsys.readouterr().err
    assert told in err and "Traceback" not in err, err
    assert not Path("runs/refused").exists()


def test_data_of_equal_settings_are_built_once_with_the_seed_of_the_run():
    node = OmegaConf.create(SETTINGS.partition("\n")[2].replace(f"{OWN}.Faint", "ssl_lab.evaluation.probes.knn.KNN"))
    digits = {"_target_": "ssl_lab.data.image.digits.Digits", "label_fraction": 0.2, "seed": 0}
    node.pop("defaults")
    node.few.data = digits
    node.mine.data = {**digits}
    with trusting():
        _, few, mine = build_protocols(node, partial(build_data, seed=7))
        node.mine.data.label_fraction = 0.3
        assert build_protocols(node, partial(build_data, seed=7))[2].data.label_fraction == 0.3
    assert few.data is mine.data and few.data.seed == 7


def test_other_texts_are_read_by_the_tokenizer_of_the_run(tmp_path):
    for name, words in (("own", "the cat sat on a mat"), ("other", "le chat dort sur un tapis")):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{words} {k}" for k in range(40)))
    settings = {"_target_": "ssl_lab.data.text.hub_text.HubText", "vocab_size": 60, "max_length": 12}
    cfg = OmegaConf.create({"seed": 0, "data": {**settings, "path": str(tmp_path / "own.txt")}})
    own = build_data(cfg.data, seed=0)
    node = OmegaConf.create({**settings, "path": str(tmp_path / "other.txt"), "tokenizer": None, "max_length": 20})
    other = data_beside(cfg, own, node)
    assert tokenizer_digest(other.tokenizer) == tokenizer_digest(own.tokenizer) and other.max_length == 12
    assert other.columns("test")["input_ids"] is not None and own.spec.accepts(other.spec)
    assert not own.spec.accepts(build_data(node, seed=0).spec), "with a tokenizer of its own it would be refused"
