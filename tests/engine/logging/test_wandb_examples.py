"""The shipped definition of a W&B sweep starts runs with settings that exist."""

from pathlib import Path

import pytest
import wandb
import yaml
from hydra import compose, initialize_config_dir
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from ssl_lab.cli.paths import config_dir

SWEEP = Path(__file__).parents[3] / "docs/examples/wandb_sweep.yaml"


@pytest.mark.skipif(not SWEEP.is_file(), reason="documentation is not shipped with the package")
def test_an_agents_command_composes(monkeypatch):
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["method"] in ("grid", "random", "bayes") and sweep["metric"]["goal"] == "maximize"
    drawn = {
        name: {"value": (space.get("values") or [space.get("min")])[0]} for name, space in sweep["parameters"].items()
    }
    macros = create_sweep_command_args({"args": drawn})
    command = []
    for part in create_sweep_command(list(sweep["command"])):  # as the agent does it
        name = part.removeprefix("${").removesuffix("}")
        command += macros[name] if name in macros else [part]
    assert command[:2] == [sweep["program"], "pretrain"]
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", command[2:])
    assert cfg.method.temperature == 0.05 and cfg.method.hidden_dim == 128 and cfg.run_dir == "runs/wandb/abc"
    assert wandb.__name__ in cfg.logger
