"""Settings that nobody gave are chosen by the data, said on one line, recorded, and kept on resumption."""

import types

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from ssl_lab.cli.defaults import choose
from ssl_lab.cli.defaults.facts import Choice, are_mirrored, facts_of
from ssl_lab.cli.defaults.method import with_method
from ssl_lab.cli.main import main
from ssl_lab.data.image.shapes import Shapes

SMALL = ["data=digits", "data.batch_size=256", "evaluation=none", "trainer=cpu", "trainer.max_epochs=1"]


def of_data(facts, cfg):
    yield Choice("encoder.widths=[4,8]", f"{facts.spec.shape[2]} pixels")
    yield Choice("views@method.views=digits", "grey images")
    yield Choice("trainer.max_epochs=7", "minutes")


def of_length(facts, cfg, num_steps):
    yield Choice(f"method.hidden_dim={8 * num_steps}", f"{num_steps} steps")
    yield Choice("optim.lr=0.25", f"{num_steps} steps")


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setattr(choose, "_TABLES", (types.SimpleNamespace(of_data=of_data, of_length=of_length),))


def pretrain(run_dir, *args):
    return main(["pretrain", *SMALL, f"run_dir={run_dir}", *args])


def settings(run_dir):
    return OmegaConf.load(run_dir / "config.yaml")


def test_choices_are_plain_settings_said_on_one_line_and_recorded(tmp_path, capsys):
    assert pretrain(tmp_path / "run") == 0
    cfg, said = settings(tmp_path / "run"), capsys.readouterr().out
    assert cfg.encoder.widths == [4, 8] and cfg.method.views.first.rotate_degrees == 15 and cfg.optim.lr == 0.25
    assert cfg.trainer.max_epochs == 1  # which the command gives
    assert cfg.method.hidden_dim == 32  # of the 4 steps of one epoch
    [line] = [line for line in said.splitlines() if line.startswith("Chosen for ")]
    assert line.startswith("Chosen for 1,213 grey images of 8x8 pixels on a CPU: encoder.widths=[4,8] (8 pixels); ")
    assert "method.hidden_dim=32, optim.lr=0.25 (4 steps)" in line and "adapt_to_data=false" in line
    recorded = yaml.safe_load((tmp_path / "run/chosen.yaml").read_text())
    assert recorded[0] == {"override": "encoder.widths=[4,8]", "reason": "8 pixels"}
    assert [each["override"].partition("=")[0] for each in recorded] == [
        *("encoder.widths", "views@method.views", "method.hidden_dim", "optim.lr")
    ]


def test_a_run_resumes_with_its_choices_whatever_would_be_chosen_now(tmp_path, monkeypatch, capsys):
    assert pretrain(tmp_path / "run") == 0
    before = settings(tmp_path / "run")
    monkeypatch.setattr(choose, "_TABLES", ())
    capsys.readouterr()
    assert pretrain(tmp_path / "run") == 0
    assert "has finished before" in capsys.readouterr().out
    assert main(["pretrain", f"run={tmp_path / 'run'}", "trainer.max_epochs=2", "force=true"]) == 0
    after = settings(tmp_path / "run")
    assert after.trainer.max_epochs == 2
    after.trainer.max_epochs, after.force, after.sweep_dir = 1, before.force, before.sweep_dir
    assert after == before
    assert main(["pretrain", f"run={tmp_path / 'run'}", "adapt_to_data=false"]) == 1
    assert "encoder.widths: [4, 8], now [64, 128, 256]" in capsys.readouterr().err


def test_what_is_given_stays(tmp_path):
    given = ["encoder.widths=[2]", "views@method.views=weak", "method={hidden_dim: 9}", "optim=sgd"]
    assert pretrain(tmp_path / "run", *given) == 0
    cfg = settings(tmp_path / "run")
    assert cfg.encoder.widths == [2] and cfg.method.hidden_dim == 9 and cfg.method.views.first.rotate_degrees == 0
    assert cfg.optim.lr == 0.3  # of the optimizer that was named


def test_settings_of_a_file_that_the_command_names_stay(tmp_path):
    assert main(["pretrain", *SMALL[:3], "trainer=smoke", f"run_dir={tmp_path / 'run'}"]) == 0
    cfg = settings(tmp_path / "run")
    assert cfg.trainer.max_steps == 4 and cfg.trainer.max_epochs == 100 and cfg.encoder.widths == [4, 8]


def test_a_setting_inside_chosen_views_stays(tmp_path):
    assert pretrain(tmp_path / "run", "method.views.first.rotate_degrees=3") == 0
    view = settings(tmp_path / "run").method.views.first
    assert view.rotate_degrees == 3 and view.shear_degrees == 10


def test_an_experiment_and_adapt_to_data_false_are_as_they_are(tmp_path, capsys):
    small = ["experiment=simclr_digits", "encoder.widths=[2]", "evaluation=none", "trainer.max_epochs=1"]
    assert main(["pretrain", *small, f"run_dir={tmp_path / 'a'}"]) == 0
    assert settings(tmp_path / "a").method.hidden_dim == 256
    assert pretrain(tmp_path / "b", "adapt_to_data=false", "encoder.widths=[2]", "method.hidden_dim=16") == 0
    assert settings(tmp_path / "b").optim.lr == 0.001
    assert "Chosen" not in capsys.readouterr().out
    assert not any((tmp_path / name / "chosen.yaml").exists() for name in "ab")


def test_an_encoder_with_weights_of_another_run_is_not_changed(tmp_path):
    assert pretrain(tmp_path / "first") == 0
    assert pretrain(tmp_path / "second", f"encoder.from_run={tmp_path / 'first'}", "method.hidden_dim=8") == 0
    assert "encoder.widths" not in (tmp_path / "second/chosen.yaml").read_text()
    assert settings(tmp_path / "second").encoder.widths == [4, 8]


def test_values_of_own_files_stay(tmp_path, monkeypatch):
    (tmp_path / "conf/optim").mkdir(parents=True)
    (tmp_path / "conf/optim/mine.yaml").write_text("_target_: ssl_lab.optim.AdamW\nlr: 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert pretrain(tmp_path / "run", "optim=mine") == 0
    assert settings(tmp_path / "run").optim.lr == 0.5


def test_a_file_of_choices_that_holds_more_is_refused(tmp_path, capsys):
    assert pretrain(tmp_path / "run") == 0
    (tmp_path / "run/chosen.yaml").write_text('- {override: "hydra.run.dir=/tmp"}\n')
    assert pretrain(tmp_path / "run") == 1
    assert "chosen.yaml holds 'hydra.run.dir=/tmp', which is not a setting of a run" in capsys.readouterr().err


def test_a_handful_of_images_says_nothing_of_mirrors():
    facts = [facts_of(Shapes(num_train=n), accelerator="cpu") for n in (10, 100)]
    assert [each.mirrored for each in facts] == [None, True] and [each.device for each in facts] == ["cpu", "cpu"]


def test_mirrored_images_are_recognised():
    shapes = torch.zeros(200, 1, 8, 8)
    left = torch.arange(200) % 2 == 0
    shapes[:, :, :, :3] = torch.rand(200, 1, 8, 3, generator=torch.Generator().manual_seed(0))
    assert not are_mirrored(shapes)
    shapes[left] = shapes[left].flip(3)[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    both = shapes[torch.randperm(200, generator=torch.Generator().manual_seed(2))]
    assert are_mirrored(both)


@pytest.mark.parametrize(
    ("args", "added"),
    [
        (["data=text_files"], ["method=mlm"]),
        (["data=image_text_pairs", "seed=1"], ["method=clip"]),
        (["data=mnist"], []),
        (["data=text_files", "method=simcse"], []),
        (["data=text_files", "experiment=gpt_text"], []),
        (["-m", "data=text_files,hub_text"], ["method=mlm"]),
        (["-m", "data=text_files,mnist"], []),
        (["data=no_such_data"], []),
    ],
)
def test_method_by_modality(args, added):
    assert with_method(args) == [*added, *args]


def test_data_that_would_be_read_otherwise_are_read_anew(monkeypatch):
    def halved(facts, cfg):
        yield Choice("data.val_fraction=0.5", "half")
        yield Choice("data.batch_size=100", "small")

    def seen(facts, cfg, num_steps):
        yield Choice(f"method.hidden_dim={facts.num_samples}", f"{num_steps} steps")

    monkeypatch.setattr(choose, "_TABLES", (types.SimpleNamespace(of_data=halved, of_length=seen),))
    args = ["data=digits", "trainer=cpu", "trainer.max_epochs=1"]
    adapted = choose.adapt(lambda more: choose.composed("pretrain", [*more, *args])[0], overrides=args, choices={})
    assert adapted.cfg.method.hidden_dim == len(adapted.datamodule.columns("pretrain")["image"]) == 674
    assert adapted.datamodule.batch_size == 100 and adapted.choices[-1].reason == "6 steps"
