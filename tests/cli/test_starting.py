"""Runs that begin with weights from elsewhere: what they compute, keep and refuse."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ssl_lab.cli.build import load_run
from ssl_lab.cli.main import main
from ssl_lab.cli.starting import _statistics_beside
from ssl_lab.tensors import read_tensors

VIT = ["encoder=vit_mae_mini", "encoder.embed_dim=24", "encoder.depth=2", "encoder.num_heads=3"]
SHORT = ["trainer=smoke", "trainer.max_steps=2", "evaluation=none"]
NO_STEP = ["optim.lr=1e-30", "optim.weight_decay=0"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A run of MAE, and its encoder's weights as a plain file."""
    folder = tmp_path_factory.mktemp("starting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_LAB_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["pretrain", "method=mae", *VIT, *SHORT, "run_dir=mae"]) == 0
        encoder = load_run(folder / "mae")[2].feature_encoder
        torch.save({"state_dict": {f"module.{name}": each for name, each in encoder.state_dict().items()}}, "vit.pth")
        yield folder


def encoder_of(run_dir):
    return load_run(run_dir)[2].encoder


def initial_row(path):
    """What a table says of the encoder before training."""
    return next(row for row in json.loads(path.read_text())["rows"] if row["name"] == "initial encoder")


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_another_method_begins_with_the_encoder_of_a_run(folder, capsys):
    assert main(["pretrain", "encoder.from_run=mae", *SHORT, *NO_STEP, "run_dir=simclr"]) == 0
    assert "Start: all 29 tensors of the encoder from mae." in capsys.readouterr().out
    wanted = encoder_of(folder / "mae").state_dict()
    equal(encoder_of(folder / "simclr").state_dict(), wanted)
    equal(read_tensors(folder / "simclr/checkpoints/start.safetensors"), wanted)


def test_it_resumes_and_is_judged_without_what_it_began_from(folder, capsys):
    shutil.copytree(folder / "mae", folder / "gone")
    small = [
        "data.batch_size=32",
        "trainer.limit_train_batches=2",
        "evaluation=label_free",
    ]
    whole = ["pretrain", "encoder.from_run=gone", "trainer.accelerator=cpu", *small, "trainer.max_epochs=2"]
    assert main([*whole, "run_dir=whole"]) == 0
    assert main([*whole, "trainer.max_epochs=1", "run_dir=parts"]) == 0
    shutil.rmtree(folder / "gone")
    capsys.readouterr()
    assert main([*whole, "run_dir=parts", "force=true"]) == 0
    assert "Start:" not in capsys.readouterr().out
    whole, parts = (initial_row(folder / f"{name}/evaluation.json") for name in ("whole", "parts"))
    assert whole == parts
    assert main(["evaluate", "run=parts", "out=again.json"]) == 0
    assert initial_row(folder / "again.json") == parts
    (folder / "parts/checkpoints/start.safetensors").unlink()
    assert main(["evaluate", "run=parts", "out=more.json"]) == 1
    assert "the weights that the run began with" in capsys.readouterr().err
    assert main(["evaluate", "run=parts", "out=more.json", "baselines=false"]) == 0


def test_a_file_gives_its_weights_and_the_log_names_all_of_them(folder, capsys):
    assert main(["pretrain", "method=mae", *VIT, "encoder.weights=vit.pth", *SHORT, *NO_STEP, "run_dir=file"]) == 0
    printed = capsys.readouterr().out
    assert "Start: 29 of 29 tensors of the encoder from vit.pth (below state_dict.module)" in printed
    assert "encoder.normalise_by=imagenet" in printed
    assert "loaded blocks.0.norm1.weight" in (folder / "file/run.log").read_text()
    equal(encoder_of(folder / "file").state_dict(), encoder_of(folder / "mae").state_dict())


def test_pixels_are_normalised_as_a_folder_of_weights_says(folder, capsys):
    (folder / "model").mkdir()
    save_file(dict(encoder_of(folder / "mae").state_dict()), folder / "model/model.safetensors")
    config = {"pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}}
    (folder / "model/config.json").write_text(json.dumps(config))
    assert main(["pretrain", "method=mae", *VIT, "encoder.weights=model", *SHORT, "run_dir=statistics"]) == 0
    assert "normalised as the weights ask for, by model/config.json" in " ".join(capsys.readouterr().out.split())
    spec = encoder_of(folder / "statistics").spec
    assert (spec.mean, spec.std) == ((pytest.approx(0.5),), (pytest.approx(0.2),))
    assert (
        main(
            ["pretrain", "method=mae", *VIT, "encoder.weights=model", "encoder.normalise_by=data", *SHORT, "run_dir=d"]
        )
        == 0
    )
    assert encoder_of(folder / "d").spec.mean == encoder_of(folder / "mae").spec.mean


@pytest.mark.parametrize(
    ("name", "facts", "told"),
    [
        ("config.json", {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}}, "found mean"),
        ("config.json", {"pretrained_cfg": {"mean": [0.5] * 3, "std": "wide"}}, "standard deviation wide"),
        (
            "preprocessor_config.json",
            {"image_mean": [123.7, 116.3, 103.5], "image_std": [1.0] * 3},
            "from 0 to 1 for each",
        ),
        ("preprocessor_config.json", {"image_mean": [0.5, None, 0.5], "image_std": [0.5] * 3}, "found mean"),
        ("preprocessor_config.json", {"image_mean": [0.5] * 3}, "standard deviation None"),
        ("config.json", {"pretrained_cfg": None}, None),
        ("config.json", {"pretrained_cfg": ["resnet"]}, None),
        ("config.json", {"pretrained_cfg": {"mean": [0.25], "std": [0.5]}}, None),
    ],
)
def test_statistics_of_pixels_beside_weights_are_checked(name, facts, told, tmp_path):
    (tmp_path / name).write_text(json.dumps(facts))
    if told is None:
        assert (_statistics_beside(tmp_path / "vit.pth") is None) == ("mean" not in str(facts))
    else:
        with pytest.raises(
            ValueError, match=rf"(?s){re.escape(str(tmp_path / name))}.*{told}.*encoder.normalise_by=data"
        ):
            _statistics_beside(tmp_path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["encoder.from_run=mae", "encoder.weights=vit.pth"], "from_run and encoder.weights at once"),
        (["encoder.from_run=mae", "encoder=convnet"], "that run's encoder is a ViT. Leave encoder= out"),
        (["encoder.from_run=nothing"], "nothing"),
        (["encoder.weights=nothing.pth"], "Cannot read weights from nothing.pth: there is no such file"),
        (["encoder.weights=NOTHING"], "no published weights by name"),
        (["encoder.weights=vit.pth"], "gives 0 of the encoder's"),
        (["encoder.normalise_by=imagenet"], "has no effect without encoder.weights"),
        (["encoder.weights=vit.pth", "encoder.normalise_by=mean"], "Choose from data, imagenet"),
        (["encoder.from_run=mae", "data=shapes"], "Choose data of the same modality and number of channels"),
    ],
)
def test_what_cannot_be_begun_with_is_refused(folder, capsys, asked, said):
    assert main(["pretrain", *asked, *SHORT, "run_dir=refused"]) == 1
    found = capsys.readouterr().err
    assert said in found and "Traceback" not in found
    assert not (folder / "refused").exists()


def test_a_run_that_began_with_weights_keeps_them(folder, capsys):
    assert main(["pretrain", "run=file", "encoder.weights=other.pth", "force=true"]) == 1
    assert "the weights of its checkpoint stay" in capsys.readouterr().err
