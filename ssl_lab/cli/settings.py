"""The settings of the commands that are given as overrides, but for pretrain, whose settings Hydra composes."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from ssl_lab.cli.arguments import with_raw_paths
from ssl_lab.cli.defaults.method import with_method
from ssl_lab.cli.defaults.task import with_task
from ssl_lab.cli.experiments import drop_replaced, keep_composable
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.trust.own_of_commands import check_own_settings
from ssl_lab.cli.trust.targets import tell_used
from ssl_lab.engine.checkpoints.signals import is_first_rank

_PLACEHOLDERS = {"run": "DIR", "out": "FOLDER"}


def compose_settings(name: str, overrides: list[str]) -> DictConfig:
    """Compose the settings of a command without slow imports, so that mistakes are reported at once.

    Raises:
        ValueError: If a mandatory setting is missing.
    """
    completed = {"bench": with_method, "finetune": with_task}.get(name, list)(overrides)
    given = keep_composable(name, with_raw_paths(completed))
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(name, given, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    replaced = drop_replaced(cfg, choices, given)
    if is_first_rank():
        print("".join(f"{sentence}\n" for sentence in replaced), end="")
    tell_used()
    # An evaluation may refer to the configuration of a run, which is not known yet.
    missing = OmegaConf.missing_keys(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "evaluation"]))
    if missing:
        needed = ", ".join(f"{key}={_PLACEHOLDERS.get(key, 'VALUE')}" for key in sorted(missing))
        raise ValueError(f"ssl-lab {name} needs {needed}. See all settings with ssl-lab {name} --help.")
    if "run" in cfg and not isinstance(cfg.run, str | ListConfig if name == "evaluate" else str | None):
        raise ValueError(f"ssl-lab {name} reads one run directory, found run={cfg.run}. Give run=DIR.")
    if "run" in cfg and isinstance(cfg.run, ListConfig) and not cfg.run:
        raise ValueError(f"ssl-lab {name} reads one run directory or several, found run=[]. Give run=DIR.")
    check_own_settings(name, cfg, given)
    return cfg
