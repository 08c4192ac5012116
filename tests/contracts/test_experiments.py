"""Every experiment composes, and runs four steps where its data needs no download."""

import csv
import json

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.main import main
from ssl_lab.cli.paths import choices, config_dir

EXPERIMENTS = sorted(choices("experiment"))
BUNDLED = ("digits", "python_docs")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_composes_and_states_its_command(name):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", [f"experiment={name}"])
    assert cfg.trainer.max_epochs > 0
    assert f"ssl-lab pretrain experiment={name}" in (config_dir() / "experiment" / f"{name}.yaml").read_text()


def test_a_gan_has_optimizers_of_its_own_and_given_ones_win():
    """AdamW at 1e-3 for both networks, the default of other methods, lets a ConvNet win: no sample is a digit then."""

    def optimizers(*overrides):
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose("pretrain", list(overrides))
        return cfg.optim, cfg.method.get("generator_optim")

    discriminator, generator = optimizers("method=gan")
    assert (discriminator.lr, generator.lr) == (1e-4, 1e-3)
    assert discriminator.betas == generator.betas == [0.5, 0.999]
    assert discriminator.weight_decay == generator.weight_decay == 0
    assert optimizers("method=gan", "optim.lr=3e-4")[0].lr == 3e-4
    assert optimizers("method=gan", "optim=sgd")[0] == optimizers("optim=sgd")[0]
    assert optimizers("method=gan", "method.generator_optim=null")[1] is None
    assert optimizers("method=gan", "method.generator_optim.lr=5e-4")[1].lr == 5e-4
    for name in EXPERIMENTS:
        if name.startswith(("gan_", "dcgan_", "sngan_", "wgan_")):
            found, generator = optimizers(f"experiment={name}")
            assert found.lr >= 1e-4 and found.betas[0] <= 0.5 and generator is None, name


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.endswith(BUNDLED)])
def test_runs_four_steps_and_leaves_a_whole_run_directory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    small = ["trainer=smoke", "data.batch_size=16", f"run_dir={run_dir}"]
    if name.endswith("python_docs"):
        small += ["encoder.size=tiny", "data.max_length=16"]
    else:
        small += ["evaluation=none"]
    assert main(["pretrain", f"experiment={name}", *small]) == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["step"] == 4
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows)
    for file in ("config.yaml", "overrides.yaml", "spec.json", "report.html", "checkpoints/last.ckpt"):
        assert (run_dir / file).is_file(), file
    assert any((run_dir / "pictures").iterdir())
