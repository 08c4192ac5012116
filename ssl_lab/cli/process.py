"""What every command that builds live objects begins with."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

import matplotlib
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from rich.console import Console

from ssl_lab.cli.arguments import with_raw_paths
from ssl_lab.cli.experiments import drop_replaced
from ssl_lab.cli.own_of_commands import check_own_settings
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.trust import tell_used
from ssl_lab.engine.memory import keep_freed_memory
from ssl_lab.engine.signals import is_first_rank
from ssl_lab.report.tables import results_table

_SETTLED = {
    r"The '\w+' does not have many workers": "loaders take their number from data.num_workers; most need none",
    "Consider setting `persistent_workers=True`": "loaders are made by the data modules, not by the user",
    "Starting from v1.9.0, `tensorboardX`": "logger= chooses what is logged to; none is the default logger of Lightning",
    "The number of training batches .* is smaller than the logging interval": "the end of each epoch has its line",
    "It is recommended to use `self.log": "what is logged is a mean over ranks where that matters",
    "You called `self.log": "logger=none was asked for",
    "Checkpoint directory .* exists and is not empty": "a run that goes on; the run directory was looked into before",
    "The dirpath has changed from": "a run directory may be moved; checkpoints are found by the run= that is given",
    "Experiment logs directory .* exists": "a run that goes on",
    "The `srun` command is available": "a command on a login node is no mistake; processes that srun starts are counted",
    "You're resuming from a checkpoint that ended before the epoch ended": "loaders go on at the sample they stopped at",
    "Be aware that when using `ckpt_path`": "callbacks that differ from those of the run were told as changes",
    r"Found \d+ module\(s\) in eval mode": "teachers and pretrained parts stay in eval mode by design",
    "Trying to infer the `batch_size`": "means over an epoch are weighted by ssl_lab",
    "GPU available but not used": "trainer.accelerator=cpu was asked for",
    "`isinstance.treespec, LeafSpec.` is deprecated": "a matter between torch and Lightning",
}
"""How warnings of Lightning begin that a user cannot act on, and why; all others are shown."""


def compose_settings(name: str, overrides: list[str]) -> DictConfig:
    """The settings of a command with overrides, in a process made ready for it.

    Raises:
        ValueError: If a mandatory setting is missing.
    """
    prepare_process()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        given = with_raw_paths(overrides)
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
        raise ValueError(f"ssl-lab {name} needs {', '.join(sorted(missing))}. Give it as key=value.")
    if "run" in cfg and not isinstance(cfg.run, str | ListConfig if name == "evaluate" else str | None):
        raise ValueError(f"ssl-lab {name} reads one run directory, found run={cfg.run}. Give run=DIR.")
    if "run" in cfg and isinstance(cfg.run, ListConfig) and not cfg.run:
        raise ValueError(f"ssl-lab {name} reads one run directory or several, found run=[]. Give run=DIR.")
    check_own_settings(name, cfg, given)
    return cfg


def find_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_process() -> None:
    """Memory is kept, and what libraries say of what ssl_lab has settled is not shown."""
    keep_freed_memory()
    matplotlib.rcdefaults()  # a matplotlibrc in the working folder can start LaTeX
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # its retries; what fails in the end is an error of ours
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # what it logs, its errors say
    for beginning in _SETTLED:
        warnings.filterwarnings("ignore", message=beginning)
    if not sys.stdout.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def print_table(evaluation: dict[str, Any]) -> None:
    """Show an evaluation on the terminal."""
    Console(width=None if sys.stdout.isatty() else 120).print(results_table(evaluation))
