"""The command as a user meets it: help, lists, completion, errors, and what follows a run."""

import json
import os
import pickle
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from forked import ssl_lab
from PIL import Image

from ssl_lab.cli.commands import COMMANDS, SETTINGS
from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main
from ssl_lab.methods.simclr import SimCLR

SMALL = ["data.batch_size=64", "trainer=smoke", "evaluation=none"]


def pretrain(run_dir, *args):
    return main(["pretrain", *SMALL, f"run_dir={run_dir}", *args])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "simclr"
    assert pretrain(run_dir, "encoder.widths=[8,16]", "method.hidden_dim=16") == 0
    return run_dir


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--help", 0),
        ("sample -h", 0),
        ("list", 0),
        ("list views", 0),
        ("-sc install=bash", 0),
        ("pretrain --help", 0),
        ("pretrain experiment=simclr_digits --cfg job", 0),
        ("pretrain experiment=simclr_digit", 1),
        ("pretrain method.temprature=0.2", 1),
        ("pretrain run=nowhere", 1),
        ("evaluate", 1),
        ("finetune run=null data=digits tsak=classification", 1),
    ],
)
def test_quick_answers_do_not_import_torch(args, code, tmp_path):
    program = (
        "import sys; from ssl_lab.cli.main import main\n"
        f"try: code = main({args.split()})\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        f"assert code == {code}, code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr


def test_lightnings_notices_stay_hidden_in_a_fresh_process():
    code = (
        "import logging; from ssl_lab.cli.process import prepare_process; prepare_process(); import lightning.pytorch; "
        "assert not any(logging.getLogger('lightning.' + name).isEnabledFor(logging.INFO) for name in ('pytorch', 'fabric'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name, capsys):
    try:
        code = main([name, "--help"])
    except SystemExit as stop:  # argparse
        code = stop.code
    text = capsys.readouterr().out
    assert not code
    assert f"ssl-lab {name}" in text
    if name == "pretrain":
        first = (
            "trainer.max_epochs  100",
            "data.batch_size     256",
            "data.image_size     null",
            "optim.lr            1.0e-3",
        )
        assert all(setting in text[: text.index("Groups,")] for setting in first)
    if name in SETTINGS:
        assert re.search(r"^  run +\(required\) ", text, re.MULTILINE) or name in ("prepare", "bench")


@pytest.mark.parametrize("group", ["views", "masking", "generator"])
def test_list_names_choices_of_a_method_as_the_command_takes_them(group, capsys):
    assert main(["list", group]) == 0
    assert f"({group}@method.{group}=NAME)" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["--help"], ["list"]])
def test_a_reader_that_closes_the_output_is_no_error(args):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ssl_lab.cli.main", *args]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ssl-lab pre", "pretrain"),
        ("ssl-lab pretrain method=si", "method=simclr"),
        ("ssl-lab pretrain experiment=vae_di", "experiment=vae_digits"),
        ("ssl-lab pretrain method=vae method.lat", "method.latent_dim="),
        ("ssl-lab evaluate data=fash", "data=fashion_mnist"),
        ("ssl-lab ex", "export"),
        ("ssl-lab export over", "overwrite="),
        ("ssl-lab sample top_", "top_k="),
        ("ssl-lab list meth", "methods"),
    ],
)
def test_tab_completes(line, expected):
    assert expected in completions(line)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pretrain", "method.temprature=1"], "Did you mean method.temperature?"),
        (["pretrain", "method=simclrr"], "Did you mean method=simclr or"),
        (["pretrain", "method=mlm"], "of one modality"),
        (["pretrain", "data=python_docs", "encoder=convnet"], "ConvNet takes images, but the data is texts"),
        (["pretrain", "encoder.widths=[8,8,8,8,8,8]"], "encoder.widths"),
        (["pretrain", "data.batch_size=100000"], "Set data.batch_size=512"),
        (["pretrain", "evaluation=mlm"], "Choose another evaluation="),
        (["pretrain", "data=sts_b"], "Missing mandatory value: data.path. Give it on the command line as data.path="),
        (["pretrain", "trainer.devices=abc"], "Lightning's trainer refuses its settings: `devices`"),
        (["pretrain", "evaluation=features", "evaluation.knn=abc"], "give a mapping with _target_ there"),
        (["pretrain", "logger=wandb", "logger.wandb=5"], "give a mapping with _target_ there"),
        (["pretrain", "encoder.widths=[]"], "at least one stage"),
        (["pretrain", "+="], "have the form key=value"),
        (["pretrain", "ckpt=last"], "No checkpoint at"),
        (["pretrain", "--experiment", "simclr_digits"], "see all: ssl-lab pretrain --cfg job"),
        (["evaluate", "--run=nowhere"], "see all: ssl-lab evaluate --help"),
        (["evaluate", "run=nowhere"], "is not a run directory"),
        (["evaluate"], "needs run=DIR"),
        (["export", "run=nowhere"], "needs out"),
        (["sample", "run=nowhere", "text=a [MASK] 'quoted' ${word}"], "is not a run directory"),
        (["frobnicate"], "Choose from: "),
        (["list", "stars"], "There is no list of 'stars'"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_message_with_exit_code_1(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if args[0] == "pretrain":
        args = [*args, "trainer=smoke", "run_dir=run"]
    assert main(args) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert errors.count("ssl-lab:") == 1


def test_what_unlabelled_images_leave_out_is_one_line(tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(24):
        Image.new("RGB", (8, 8), (10 * k, 99, 7)).save(tmp_path / "images" / f"{k}.png")
    settings = ["data=image_folder", "data.root=images", "data.image_size=8", "data.batch_size=8", "encoder.widths=[8]"]
    done = ssl_lab("pretrain", *settings, "trainer=smoke", "evaluation=features", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    left_out = "images has no labels, which KNN, LinearProbe, FewLabelProbe need: left out."
    assert [line for line in done.stderr.splitlines() if "left out" in line] == [f"ssl-lab: Warning: {left_out}"]


def test_a_checkpoint_with_code_or_a_torn_one_is_refused_and_runs_nothing(run, tmp_path, capsys):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "spec.json"):
        (folder / name).write_bytes((run / name).read_bytes())
    checkpoint = folder / "checkpoints/last.ckpt"
    checkpoint.parent.mkdir()
    torch.save({"state_dict": Attack()}, checkpoint)
    assert main(["evaluate", f"run={folder}"]) == 1
    assert "code or objects instead of tensors" in capsys.readouterr().err
    checkpoint.write_bytes(pickle.dumps({"state_dict": Attack()}))
    assert main(["evaluate", f"run={folder}"]) == 1
    whole = (run / "checkpoints/last.ckpt").read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert main(["evaluate", f"run={folder}"]) == 1
    assert "truncated or damaged" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_evaluate_and_embed_a_run(run, tmp_path, capsys):
    assert main(["evaluate", f"run={run}", "evaluation=features"]) == 0
    table = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["raw pixels", "random encoder", "SimCLR encoder"]
    assert table["rows"][0]["metrics"]["linear/top1"] > 0.9
    out = tmp_path / "features.parquet"
    assert main(["embed", f"run={run}", f"out={out}"]) == 0
    features = pq.read_table(out)
    assert features.num_rows == 1797
    assert features.column_names == ["id", "label", "class", "features"]
    assert features["id"].to_pylist() == [f"digits/{k}" for k in range(1797)], "in scikit-learn's order"
    assert len(features["features"][0].as_py()) == 16
    assert main(["sample", f"run={run}"]) == 1
    assert "SimCLR draws no images" in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 2])
def test_embed_takes_new_data_as_a_whole(run, tmp_path, number):
    """One or two images are enough: no other split is cut from them unless it is asked for."""
    (tmp_path / "new").mkdir()
    for k in range(number):
        Image.new("L", (8, 8), 40 * k + 40).save(tmp_path / "new" / f"{k}.png")
    data = ["data=image_folder", f"data.root={tmp_path}/new", "data.image_size=8", "data.channels=1"]
    assert main(["embed", f"run={run}", *data, f"out={tmp_path}/new.parquet"]) == 0
    found = pq.read_table(tmp_path / "new.parquet")
    assert found["path"].to_pylist() == [str(tmp_path / "new" / f"{k}.png") for k in range(number)]
    assert found.column_names == ["path", "features"]
    chosen = [f"out={tmp_path}/cut.parquet", "data.val_fraction=0.5", "splits=[train,val]"]
    assert main(["embed", f"run={run}", *data, *chosen]) == (1 if number == 1 else 0)
    if number == 2:
        assert pq.read_table(tmp_path / "cut.parquet")["split"].to_pylist() == ["train", "val"]


def test_evaluate_puts_runs_in_one_table(run, tmp_path, capsys):
    other = tmp_path / "vae"
    small = [
        "method=vae",
        "encoder.widths=[8,16]",
        "encoder.widths=[8]",
        "method.decoder.width=8",
        "data.batch_size=32",
    ]
    assert pretrain(other, *small) == 0
    capsys.readouterr()
    assert main(["evaluate", f"run=[{run},{other}]", "evaluation=features"]) == 0
    printed = capsys.readouterr().out
    tables = [json.loads((folder / "evaluation.json").read_text()) for folder in (run, other)]
    assert [row["name"] for row in tables[1]["rows"]] == ["raw pixels", "random encoder", "VAE encoder"]
    assert tables[0]["rows"][0] == tables[1]["rows"][0]
    assert tables[0]["rows"][1] != tables[1]["rows"][1], "their encoders differ"
    accuracy = printed[printed.index("Accuracy") : printed.index("Features without labels")]
    assert accuracy.count("raw pixels") == 1
    for name in ("random encoder · SimCLR", "random encoder · VAE", "\nSimCLR ", "\nVAE "):
        assert accuracy.count(name) == 1, name

    assert main(["evaluate", f"run=[{run},{run}]", "evaluation=label_free", "split=val"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("random encoder") == 1
    assert "SimCLR · simclr (no. 2)" in printed
    (file,) = run.glob("evaluation_digits_1x8x8_val_*.json")
    assert main(["evaluate", f"run={other}", "evaluation=vae", "evaluation.samples.num_samples=20"]) == 0
    metrics = json.loads((other / "evaluation.json").read_text())["rows"][-1]["metrics"]
    assert {"elbo/elbo", "knn/top1", "few_label/top1_n5"} <= set(metrics), "earlier results stay"


def test_other_settings_replace_no_result_and_stand_in_a_column_of_their_own(run, tmp_path, capsys):
    assert main(["evaluate", f"run={run}", "evaluation=features"]) == 0
    before = json.loads((run / "evaluation.json").read_text())
    assert main(["evaluate", f"run={run}", "evaluation=features", "evaluation.knn.num_neighbors=[1]"]) == 0
    assert "kNN" in capsys.readouterr().out
    after = json.loads((run / "evaluation.json").read_text())["rows"][-1]["metrics"]
    assert after["knn/top1[num_neighbors=20]"] == before["rows"][-1]["metrics"]["knn/top1"]
    assert after["linear/top1"] == before["rows"][-1]["metrics"]["linear/top1"]
    assert after["knn/top1[num_neighbors=1]"] > 0
    there = (run / "evaluation.json").read_bytes()
    assert main(["evaluate", f"run={run}", "evaluation=none"]) == 1
    assert "evaluation=none measures nothing" in capsys.readouterr().err
    assert (run / "evaluation.json").read_bytes() == there
    assert main(["evaluate", f"run={run}", "evaluation=features"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["rows"][-1]["metrics"] == after
    capsys.readouterr()
    assert main(["leaderboard", str(run), "--metric", "knn/top1"]) == 0
    head = capsys.readouterr().out.splitlines()[4]
    assert "num_neighbors=1 ↑" in head and "num_neighbors=20 ↑" in head


def test_evaluate_writes_where_out_says_and_looks_there_first(run, tmp_path, capsys, monkeypatch):
    assert main(["evaluate", f"run={run}", "evaluation=features"]) == 0
    there = (run / "evaluation.json").read_bytes()
    command = ["evaluate", f"run={run}", "evaluation=label_free"]
    assert main([*command, f"out={tmp_path / 'new/file.json'}"]) == 0
    assert main([*command, f"out={tmp_path / 'folder'}"]) == 0
    assert (run / "evaluation.json").read_bytes() == there
    for path in ("new/file.json", "folder/evaluation.json"):
        found = json.loads((tmp_path / path).read_text())["rows"][-1]["metrics"]
        assert {"linear/top1", "rankme/rank"} <= set(found)
    monkeypatch.setattr("ssl_lab.engine.judge.measure", lambda *args, **kwargs: pytest.fail("computed first"))
    (tmp_path / "mine.json").write_text("{}")
    for out, message in (
        (f"out={tmp_path / 'mine.json'}", "holds no evaluation"),
        ("out=/proc/none/x.json", "/proc cannot be written to"),
        (f"out={tmp_path / 'mine.json/below/x.json'}", "mine.json is not a folder"),
    ):
        capsys.readouterr()
        assert main([*command, out]) == 1
        error = capsys.readouterr().err
        assert message in error and "Give out=" in error and "Traceback" not in error


def test_features_that_are_not_finite_are_refused_and_no_file_is_left(run, tmp_path, capsys, monkeypatch):
    real = SimCLR.features

    def broken(self, batch):
        features = real(self, batch)
        features[0] = float("nan")
        return features

    monkeypatch.setattr(SimCLR, "features", broken)
    for use, command in (
        ("written", ["embed", f"out={tmp_path / 'f.parquet'}"]),
        ("exported", ["export", "format=onnx", f"out={tmp_path / 'e'}"]),
    ):
        assert main([*command, f"run={run}"]) == 1
        assert f"samples are not finite and cannot be {use}." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_commands_try_their_output_before_they_load_a_run(run, tmp_path, capsys, monkeypatch):
    for place in ("ssl_lab.cli.build.load_run", "ssl_lab.cli.build.build_data"):
        monkeypatch.setattr(place, lambda *args, **kwargs: pytest.fail("too late"))
    for command in ("embed", "export", "reconstruct", "interpolate", "prepare", "bench"):
        args = {"prepare": ["data.path=x"], "bench": []}.get(command, [f"run={run}"])
        assert main([command, *args, "out=/proc/none/x.png"]) == 1
        assert "/proc cannot be written to" in capsys.readouterr().err
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "</html>" in (tmp_path / "page.html").read_text()
    monkeypatch.setattr("ssl_lab.outputs.os.access", lambda *args: False)
    assert main(["report", str(run)]) == 1
    assert "with --out FILE.html" in capsys.readouterr().err


def test_runs_on_different_data_are_put_in_one_table_on_named_data_alone(run, tmp_path, capsys):
    other = tmp_path / "other"
    assert pretrain(other, "encoder.widths=[8,16]", "method.hidden_dim=16", "data.val_fraction=0.2") == 0
    command = ["evaluate", f"run=[{run},{other}]", "evaluation=label_free"]
    capsys.readouterr()
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "val_fraction: 0.1 and 0.2" in error
    assert "Give data=NAME" in error
    assert main([*command, "data=digits"]) == 0
    assert "SimCLR · val_fraction 0.2" in capsys.readouterr().out
    (file,) = other.glob("evaluation_digits_1x8x8_test_*.json")


def test_sample_draws_a_grid_and_the_seed_decides(tmp_path):
    run_dir = tmp_path / "vae"
    assert pretrain(run_dir, "method=vae", "encoder.widths=[8,16]", "method.decoder.width=8") == 0
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        out = tmp_path / f"{name}.png"
        assert main(["sample", f"run={run_dir}", "num_samples=20", f"seed={seed}", f"out={out}"]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 16 * 48


def test_compare_reports(run, tmp_path, capsys):
    out = tmp_path / "comparison.html"
    assert main(["report", str(run), str(run), "--out", str(out)]) == 0
    assert "SimCLR" in out.read_text()
