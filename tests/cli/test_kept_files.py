"""No command replaces a file that it did not write: the user's own, and those of runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli.made_runs import make_run
from omegaconf import OmegaConf
from PIL import Image

from ssl_lab.cli.commands.finetune import _finished
from ssl_lab.cli.drawing import _IS_OURS, save_picture
from ssl_lab.cli.finetuning import Cell
from ssl_lab.cli.main import main
from ssl_lab.cli.resume import begin
from ssl_lab.data.text.prepare import prepare
from ssl_lab.predict.outputs import holds_features
from ssl_lab.runs.directory import update_summary, write_json
from ssl_lab.types import ImageGrid


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "report.html"}


@pytest.mark.parametrize(
    "words",
    [
        ["report", "a", "--out", "notes.txt"], ["report", "a", "--out", "a/config.yaml"],
        ["report", "a", "b", "--out", "a/metrics.csv"], ["report", "a", "b", "--out", "mine.html"],
        ["leaderboard", ".", "--out", "a/metrics.csv"], ["leaderboard", ".", "--out", "README.md"],
        ["leaderboard", ".", "--out", "mine.html"], ["leaderboard", ".", "--out", "board"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_reports_and_leaderboards_replace_their_own_files_alone(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"name": "raw pixels", "metrics": {"knn/top1": 0.9}}, {"name": "SimCLR", "metrics": {"knn/top1": 0.8}}]
    for name in ("a", "b"):
        write_json(make_run(tmp_path / name) / "evaluation.json", {"split": "test", "data": "Digits", "rows": rows})
    (tmp_path / "board").mkdir()
    for name in ("notes.txt", "README.md", "mine.html", "board/leaderboard.csv"):
        (tmp_path / name).write_text("### mine\n")
    before = contents(tmp_path)
    assert main(words) == 1
    assert contents(tmp_path) == before
    assert "did not write the file that is there" in capsys.readouterr().err
    for out in ("new.html", "new.md", "new.csv"):
        again = ["report", "a", "--out", out] if out == "new.html" else ["leaderboard", ".", "--out", out]
        assert main(again) == main(again) == 0, capsys.readouterr().err


def test_pictures_and_features_are_recognised(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    save_picture(ImageGrid(images=np_grid()), tmp_path / "ours.png")
    assert _IS_OURS(tmp_path / "ours.png") and not _IS_OURS(tmp_path / "mine.png")
    columns = {"split": ["train"], "index": [0], "features": [[0.5]]}
    pq.write_table(pa.table(columns), tmp_path / "ours.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "mine.parquet")
    (tmp_path / "broken.parquet").write_text("mine")
    assert [holds_features(tmp_path / f"{name}.parquet") for name in ("ours", "mine", "broken")] == [
        True,
        False,
        False,
    ]


def np_grid():
    import torch

    return torch.from_numpy(np.zeros((1, 1, 1, 8, 8), np.float32))


@pytest.mark.parametrize("name", ["spec.json", "metrics.csv", "checkpoints/best.ckpt", "pictures/a.png", "tokenizer/a"])
def test_a_run_does_not_begin_over_files_of_another_origin(name, tmp_path):
    """A folder of the user's, or a run whose ``config.yaml`` was lost: its weights would be replaced."""
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).write_text("mine")
    cfg = OmegaConf.create({"resume": "auto", "ckpt": None, "force": True, "trial": None})
    with pytest.raises(ValueError, match=f"holds {name.partition('/')[0]}, which the run would replace"):
        begin(cfg, run)
    write_json(run / "summary.json", {"of": "mine"})
    (run / name).unlink()
    with pytest.raises(ValueError, match=r"holds summary.json, which the run would replace"):
        begin(cfg, run)
    update_summary(run, status="failed", error="no data")  # as a run that failed before it began leaves it
    assert begin(cfg, run).checkpoint is None


def test_shards_are_not_put_among_other_files(tmp_path):
    class Nothing:
        class_names = ()
        splits = ()

    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ValueError, match=r"it holds tokenizer, but no manifest\.json of shards"):
        prepare(Nothing(), tmp_path)
    assert not Path(tmp_path, "manifest.json").exists()


def test_a_fine_tuning_does_not_begin_over_them_either(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"holds metrics\.csv, which the run would replace"):
        _finished(Cell(cfg=OmegaConf.create({"run_dir": str(tmp_path)}), start="run", seed=0))
