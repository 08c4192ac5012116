"""``ssl-lab pretrain``: compose and check the settings before anything slow is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.defaults.method import with_method
from ssl_lab.cli.experiments import drop_replaced, keep_composable, other_evaluations
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.python314 import allow_lazy_help
from ssl_lab.cli.resume import chosen_run_dir, task_overrides, trial_name, use_run_dir, with_saved_overrides
from ssl_lab.cli.run_name import RUN_NAME, claim, named_run, removed_if_refused
from ssl_lab.cli.sweeps.grid import Outcome, attempt
from ssl_lab.cli.sweeps.register import register_sweepers
from ssl_lab.cli.trust.own_of_commands import check_own_settings
from ssl_lab.cli.trust.targets import check_targets, tell_used
from ssl_lab.engine.checkpoints.signals import InterruptedRunError, is_first_rank, stop_on_signals

OmegaConf.register_new_resolver("trial_name", trial_name, replace=True)


def run(args: list[str]) -> int:
    """``ssl-lab pretrain``: one run, with ``-m`` a sweep, or with ``run=DIR`` the rest of a run."""
    return int(pretrained(args) is None)


def pretrained(args: list[str]) -> list[Path] | None:
    """The same; the directories of the runs of this process, or None if Hydra has refused the arguments and said why."""
    command_line = list(sys.argv)
    ended: list[BaseException] = []
    run_dirs: list[Path] = []
    by_time = False

    def task(cfg: DictConfig) -> float | None | Outcome:
        sys.argv = command_line  # Lightning starts further DDP ranks from it
        if by_time:
            use_run_dir(claim(chosen_run_dir()))
            os.environ[RUN_NAME] = chosen_run_dir().name  # for ranks that a script in Python starts
        run_dirs.append(chosen_run_dir())
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return attempt(lambda: _pretrain(cfg))
        try:
            with removed_if_refused(chosen_run_dir(), parents=2 if by_time else 0):
                return _pretrain(cfg)
        except (Exception, InterruptedRunError) as error:
            ended.append(error)  # not for Hydra, which would print more than the message
            return None

    args = with_method(with_saved_overrides(args))
    sweep = "-m" in args or "--multirun" in args
    args = args if sweep else keep_composable("pretrain", args)
    register_sweepers()
    allow_lazy_help()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach us instead of being printed in part
    # Hydra wants its flags before the overrides; the commonest may stand anywhere here.
    sys.argv = [command_line[0], *sorted(args, key=lambda arg: arg not in ("-m", "--multirun"))]
    try:
        with named_run(args, sweep=sweep) as by_time:
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="pretrain")(task)()
    except SystemExit as stop:
        if stop.code != 2:
            raise
        return None
    finally:
        sys.argv = command_line
    if ended:
        raise ended[0]
    return run_dirs


def _pretrain(cfg: DictConfig) -> float | None:
    check_targets(cfg, "The settings")
    tell_used()
    stop_on_signals()
    chosen = HydraConfig.get().runtime.choices
    sentences: list[str | None] = [*drop_replaced(cfg, chosen, task_overrides())]
    if not (cfg.adapt_to_data and {"decoder", "generator"} & cfg.method.keys()):  # their evaluation is chosen later
        sentences.append(other_evaluations(chosen, task_overrides()))
    for sentence in sentences:
        if sentence and is_first_rank():
            print(sentence)
    check_own_settings("pretrain", cfg, task_overrides())
    from ssl_lab.cli.pretraining import pretrain_run  # which imports torch

    return pretrain_run(cfg)
