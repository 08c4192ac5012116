"""Sweeps over given values: one failure is not the end, in this process or in others."""

import json
import os
import subprocess

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException

from ssl_lab.cli.errors import explain
from ssl_lab.cli.main import main
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.cli.sweeps.optuna_sweeper import suggestion

SMALL = ["data.batch_size=512", "encoder.widths=[8,16]", "method.hidden_dim=16", "trainer=smoke", "evaluation=none"]


LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "ray": [
        "hydra/launcher=ray",
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ],
}


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_a_sweep_goes_on_after_a_failed_trial_and_says_so(launcher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "hydra/launcher=ray" in launcher:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    args = ["pretrain", "-m", *SMALL, *launcher, "method.temperature=-1,0.5,0.2", "sweep_dir=sweep"]
    assert main(args) == 1
    printed = capsys.readouterr()
    message = "temperature must be positive and finite, found -1"
    assert f"1 of 3 trials failed:\n  method.temperature=-1: method.{message}" in printed.err
    table = printed.out[printed.out.index("trial  ") :]
    assert [line.split() for line in table.splitlines()[1:4]] == [
        ["method.temperature=-1", "failed"],
        ["method.temperature=0.5", "finished"],
        ["method.temperature=0.2", "finished"],
    ]
    summaries = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep").glob("*/summary.json"))]
    assert [summary["status"] for summary in summaries] == ["failed", "finished", "finished"]
    assert message in summaries[0]["error"]
    if "hydra/launcher=joblib" in launcher:
        assert "LokyProcess" not in _children(), "workers with nothing left to do would delay the end"

    assert main([*args[:-2], "method.temperature=0.5,0.2", "sweep_dir=sweep"]) == 0
    if not launcher:  # others print elsewhere
        assert capsys.readouterr().out.count("has finished before") == 2


def test_an_error_that_all_trials_share_is_printed_once_with_their_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSL_LAB_TRACEBACK", raising=False)
    args = ["pretrain", "-m", *SMALL, "method.temperature=-1", "seed=0,1", "optim.lr=1e-3,2e-3", "sweep_dir=sweep"]
    assert main(args) == 1
    during, _, end = capsys.readouterr().err.partition("4 of 4 trials failed:")
    message = "temperature must be positive and finite, found -1"
    assert (during.count(message), during.count("for the same reason"), end.count(message)) == (1, 3, 1)
    assert "4 trials (seed=0 optim.lr=0.001; " in end


def _children():
    command = ["ps", "--no-headers", "-o", "args", "--ppid", str(os.getpid())]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_a_launcher_that_is_not_installed_is_named_with_its_remedy(capsys):
    assert main(["pretrain", "-m", "hydra/launcher=nowhere", "seed=0,1"]) == 1
    assert "Cannot use hydra/launcher=nowhere: it is not installed" in capsys.readouterr().err
    missing = MissingConfigException(
        "In 'hydra/config': Could not find 'hydra/launcher/joblib'", "hydra/launcher/joblib"
    )
    assert "the package hydra-joblib-launcher is not installed" in explain(missing)


@pytest.mark.parametrize("name", sorted(set(choices("sweep")) - {"grid"}))
def test_search_spaces_fit_the_experiment_that_they_name(name):
    text = (config_dir() / "sweep" / f"{name}.yaml").read_text()
    command = text[text.index("ssl-lab pretrain -m ") :].splitlines()[0].split()[3:]
    assert f"sweep={name}" in command
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", command, return_hydra_config=True)
        sweeper = cfg.hydra.sweeper
        assert sweeper._target_ == "hydra_plugins.ssl_lab.OptunaSweeper"
        params = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in sweeper.params.items()])
        compose("pretrain", [*command, *(suggestion(override)[1] for override in params)])
    assert cfg.objective.startswith("eval/")
    assert cfg.objective.split("/")[1] in cfg.evaluation
    assert f"At most {sweeper.n_trials} runs" in text


def test_trials_lie_in_folders_named_by_what_varies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssl_lab.cli.commands.pretrain._pretrain", lambda cfg: float(cfg.seed))
    args = ["pretrain", "-m", *SMALL, "method.temperature=0.2,0.5", "seed=1,2", "views@method.views=digits"]
    sweep = "a sweep=1,${x}"
    assert main([*args, f"sweep_dir={sweep}"]) == 0, capsys.readouterr().err
    folders = {path.name for path in (tmp_path / sweep).iterdir() if path.is_dir()}
    assert folders == {f"temperature={t},seed={s}" for t in (0.2, 0.5) for s in (1, 2)}
    assert main([*args[:-1], "data.batch_size=8,8", "sweep_dir=twice"]) == 1
    assert "data.batch_size=8 twice" in capsys.readouterr().err
