"""Several runs from one command: what becomes of each, and the table at the end."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_lab.cli.errors import explain
from ssl_lab.cli.resume import chosen_run_dir, task_overrides
from ssl_lab.engine.checkpoints.signals import InterruptedRunError, requeue
from ssl_lab.engine.pruned import PrunedRunError

STOPPED = ("interrupted", "preempted", "cancelled")
"""Endings of a trial that the same sweep resumes: by Ctrl-C, a signal, or because its Slurm job was cancelled."""

_PRINTED: set[tuple[str, str]] = set()
"""Folder of the sweep and message of each error that this process has printed."""


class FailedTrialsError(RuntimeError):
    """Some trials of a sweep failed; the others are done."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial; travels between processes.

    Attributes:
        overrides: What distinguishes the trial, as ``key=value``.
        run_dir: Where it lies.
        status: ``finished``, ``pruned``, ``failed``, or one of :data:`STOPPED`.
        value: The objective, if it was measured.
        error: Why it did not finish.
    """

    overrides: tuple[str, ...]
    run_dir: str
    status: str
    value: float | None = None
    error: str | None = None


def attempt(run: Callable[[], float | None]) -> Outcome:
    """Run a trial; an error ends it, but not the sweep.

    Raises:
        InterruptedRunError: If a signal stopped the run and the sweep is in this process too.
    """
    hydra_cfg = HydraConfig.get()
    overrides, run_dir = tuple(task_overrides()), str(chosen_run_dir())
    try:
        return Outcome(overrides, run_dir, "finished", run())
    except InterruptedRunError as error:
        requeue(error)
        if hydra_cfg.launcher._target_.endswith("BasicLauncher"):
            raise
        return Outcome(overrides, run_dir, error.status, error=str(error))
    except PrunedRunError as error:
        print(error)
        return Outcome(overrides, run_dir, error.status, error=str(error))
    except Exception as error:
        if os.environ.get("SSL_LAB_TRACEBACK"):
            traceback.print_exc()
        message = explain(error)
        of_sweep = (os.path.abspath(hydra_cfg.sweep.dir), message)
        again = of_sweep in _PRINTED
        print(f"ssl-lab: {'failed for the same reason as a trial before' if again else message}", file=sys.stderr)
        _PRINTED.add(of_sweep)
        return Outcome(overrides, run_dir, "failed", error=message)


class GridSweeper(Sweeper):
    """Hydra's own sweeper, with a table at the end.

    Args:
        max_batch_size: Trials given to the launcher at once; None for all.
        params: Values to try by setting, beside those of the command line.
    """

    def __init__(self, *, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        basic: Any = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"]
        self.basic = basic(max_batch_size=max_batch_size, params=params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives to a sweeper."""
        self.settings, self.loader = config, hydra_context.config_loader
        self.objective: str | None = config.objective
        self.basic.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all combinations.

        Raises:
            ValueError: If a setting has the same value twice.
            FailedTrialsError: If some failed.
            InterruptedRunError: If some were stopped by a signal.
        """
        name_by_what_varies(self.settings, _fixed(self.loader, [*self.basic._parse_config(), *arguments]))
        returns = self.basic.sweep(arguments)
        end_workers(str(self.settings.hydra.launcher._target_))
        outcomes = [job.return_value for jobs in returns for job in jobs]
        labels = distinguish([outcome.overrides for outcome in outcomes])
        rows = ((label, o.status, o.value) for label, o in zip(labels, outcomes, strict=True))
        print_trials(rows, objective=self.objective)
        refuse_failures(list(zip(labels, outcomes, strict=True)))
        return returns


def name_by_what_varies(settings: DictConfig, fixed: Sequence[str]) -> None:
    """Name trial directories by the settings that vary, in whichever process they are made."""
    keys = [*settings.hydra.job.config.override_dirname.exclude_keys, *fixed]
    shown = ",".join(f"'{key}'" for key in keys)
    settings.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{shown}]")


def _fixed(loader: ConfigLoader, arguments: list[str]) -> list[str]:
    """Keys that have one value in a sweep.

    Raises:
        ValueError: If a key has the same value twice, so that two trials were the same.
    """
    overrides = {one.get_key_element(): one for one in OverridesParser.create(loader).parse_overrides(arguments)}
    varying = {key for key, one in overrides.items() if one.is_sweep_override()}
    for key in varying:
        if overrides[key].is_discrete_sweep():
            counts = Counter(overrides[key].sweep_string_iterator())
            if twice := [value for value, count in counts.items() if count > 1]:
                raise ValueError(
                    f"The sweep has {key}={twice[0]} twice, which is the same trial. Give each value once."
                )
    return [key.lstrip("+~") for key in overrides if key not in varying]


def end_workers(launcher: str) -> None:
    """End the processes in which ``hydra/launcher=joblib`` has run trials; left to themselves they delay the end.

    Args:
        launcher: Class of Hydra's launcher.
    """
    if launcher.endswith("JoblibLauncher"):
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def print_trials(rows: Iterable[tuple[str, str, float | None]], *, objective: str | None) -> None:
    """A table of trials: what distinguishes each, its status, its objective."""
    table = Table("trial", "status", box=None, header_style="bold", pad_edge=False)
    table.add_column(objective or "objective", justify="right")
    for label, status, value in rows:
        table.add_row(escape(label), status, "" if value is None else f"{value:.4f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def refuse_failures(trials: Sequence[tuple[str, Outcome]]) -> None:
    """End with an error if not all is well.

    Raises:
        FailedTrialsError: Naming the trials that failed, and why.
        InterruptedRunError: If there were trials that a signal stopped.
    """
    stopped = [(label, outcome) for label, outcome in trials if outcome.status in STOPPED]
    failed: dict[str | None, list[str]] = {}
    for label, outcome in trials:
        if outcome.status == "failed":
            failed.setdefault(outcome.error, []).append(label)
    number = sum(map(len, failed.values()))
    lines = "".join(f"\n  {_named(labels)}: {error}" for error, labels in failed.items())
    failures = f"{number} of {len(trials)} trials failed:{lines}" if failed else ""
    if stopped:
        how = "cancelled" if all(outcome.status == "cancelled" for _, outcome in stopped) else "stopped by a signal"
        which = "".join(f"\n  {label}: {outcome.error}" for label, outcome in stopped if outcome.status == "cancelled")
        raise InterruptedRunError(
            f"{len(stopped)} of {len(trials)} trials were {how}. Run the same command with the same "
            "sweep_dir= to resume them." + which + (f"\n{failures}" if failures else ""),
            "SIGTERM" if any(outcome.status == "preempted" for _, outcome in stopped) else "SIGINT",
        )
    if failed:
        raise FailedTrialsError(failures)


def _named(labels: Sequence[str]) -> str:
    """Labels of trials that failed for one reason, and how many they are; the first three by name."""
    if len(labels) == 1:
        return labels[0]
    return f"{len(labels)} trials ({'; '.join(labels[:3])}{'; ...' if len(labels) > 3 else ''})"


def distinguish(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Return the overrides of each trial that not all trials share."""
    shared = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [" ".join(one for one in trial if one not in shared) or "same as the others" for trial in overrides]
