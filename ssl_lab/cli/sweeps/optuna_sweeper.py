"""``hydra/sweeper=optuna``: a study whose trials are runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.errors import explain
from ssl_lab.cli.instantiate import instantiate
from ssl_lab.cli.resume import NOT_THE_RUN
from ssl_lab.cli.sweeps.grid import STOPPED, Outcome, end_workers, name_by_what_varies, print_trials, refuse_failures
from ssl_lab.cli.sweeps.study import SharedStudy, Suggest, import_optuna, open_storage

if TYPE_CHECKING:
    import optuna

_FIXED = "fixed_overrides"  # user attribute of a study


class OptunaSweeper(Sweeper):
    """Optimises the runs' ``objective``; the arguments are those of conf/hydra/sweeper/optuna.yaml.

    Args:
        study_name: Name of the study in the database.
        storage: URL of the database.
        direction: ``maximize`` or ``minimize``.
        n_trials: Trials of the study, over all workers and restarts.
        n_jobs: Trials that are started together.
        sampler: Settings of Optuna's sampler, with ``_target_``.
        pruner: Settings of Optuna's pruner, with ``_target_``.
        heartbeat_sec: Time between two signs of life of a running trial.
        lost_after_sec: Time without a sign of life after which another worker resumes the trial.
        params: The search space, in Hydra's syntax for sweeps, by setting.
    """

    def __init__(
        self,
        *,
        study_name: str,
        storage: str,
        direction: str,
        n_trials: int,
        n_jobs: int,
        sampler: dict[str, Any],
        pruner: dict[str, Any],
        heartbeat_sec: float,
        lost_after_sec: float,
        params: dict[str, Any],
    ) -> None:
        import_optuna()
        if heartbeat_sec * 2 > lost_after_sec:
            raise ValueError(
                f"A trial would be lost after {lost_after_sec} s of silence with a sign of life every {heartbeat_sec} s. Set "
                "hydra.sweeper.lost_after_sec to several times hydra.sweeper.heartbeat_sec."
            )
        self.study_name = study_name
        self.storage = storage
        self.direction = direction
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.sampler = sampler
        self.pruner = pruner
        self.heartbeat_sec = heartbeat_sec
        self.lost_after_sec = lost_after_sec
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives to a sweeper."""
        self.settings = config
        self.loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has all of them, and none is left that might be lost.

        Raises:
            ValueError: If there is no objective or nothing to search, or ranks were started from outside.
            FailedTrialsError: If trials of this worker failed.
            InterruptedRunError: If a signal stopped them.
        """
        fixed, space = self._read(arguments)
        self._check(fixed, space)
        name_by_what_varies(self.settings, [one.split("=")[0].lstrip("+~") for one in fixed])
        sweep_dir = Path(self.settings.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        study = SharedStudy(
            lambda: self._open(fixed),
            sweep_dir / "study.lock",
            [suggest for suggest, _ in space.values()],
            num_trials=self.n_trials,
            heartbeat_sec=self.heartbeat_sec,
            lost_after_sec=self.lost_after_sec,
        )
        ended: list[tuple[str, Outcome]] = []
        while True:
            trials = study.claim(self.n_jobs)
            if trials:
                with study.alive(trials):
                    outcomes = self._launch(trials, fixed)
                    for trial, outcome in zip(trials, outcomes, strict=True):
                        study.tell(trial, outcome)
                ended += [(f"trial {trial.number}", o) for trial, o in zip(trials, outcomes, strict=True)]
            elif study.others_run():
                time.sleep(self.heartbeat_sec)
            else:
                break
            if any(outcome.status in STOPPED for _, outcome in ended):
                break
        end_workers(str(self.settings.hydra.launcher._target_))
        found = study.trials()
        rows = ((f"{number}  {' '.join(o.overrides)}", o.status, o.value) for number, o in enumerate(found))
        print_trials(rows, objective=self.settings.objective)
        best = study.best()
        if best is not None:
            print(f"Best: trial {best}, {found[best].run_dir}")
        refuse_failures(ended)

    def _read(self, arguments: list[str]) -> tuple[list[str], dict[str, tuple[Suggest, str]]]:
        """Overrides that all trials share, and by setting how to draw it and an override that might come of it."""
        parser = OverridesParser.create(config_loader=self.loader)
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides([*params, *arguments])}
        space = {key: suggestion(one) for key, one in overrides.items() if one.is_sweep_override()}
        return [str(one.input_line) for key, one in overrides.items() if key not in space], space

    def _check(self, fixed: list[str], space: dict[str, tuple[Suggest, str]]) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "hydra/sweeper=optuna was started on several ranks, each of which would draw trials of its own. Start one "
                "process; hydra/launcher=slurm starts the ranks of each trial."
            )
        if self.settings.hydra.launcher.get("wait") is False:
            raise ValueError(
                "hydra/sweeper=optuna draws trials by what others have reached, but hydra.launcher.wait=false does not wait "
                "for them. Set hydra.launcher.wait=true."
            )
        if self.settings.objective is None:
            raise ValueError(
                "hydra/sweeper=optuna needs to know what to optimise, but objective is null. Give a metric of the validation "
                "split, such as objective=eval/linear/top1, or a search space that sets one: sweep=NAME."
            )
        if not space:
            raise ValueError(
                "hydra/sweeper=optuna found nothing to search. Give ranges, such as "
                "'optim.lr=tag(log,interval(1e-4,1e-2))', or a search space: sweep=NAME."
            )
        example = [override for _, override in space.values()]
        self.loader.load_sweep_config(self.settings, [*fixed, *example])

    def _open(self, fixed: list[str]) -> optuna.Study:
        study = import_optuna().create_study(
            study_name=self.study_name,
            storage=open_storage(self.storage),
            direction=self.direction,
            sampler=instantiate(OmegaConf.create(self.sampler)),
            load_if_exists=True,
        )
        fixed = sorted(one for one in fixed if one.split("=")[0] not in NOT_THE_RUN)
        begun = study.user_attrs.get(_FIXED, fixed)
        if begun != fixed:
            raise ValueError(
                f"The study {self.study_name!r} was started with {' '.join(begun)}, but now with "
                f"{' '.join(fixed)}. Restore these, or choose another sweep_dir= or hydra.sweeper.study_name=."
            )
        study.set_user_attr(_FIXED, fixed)
        return study

    def _launch(self, trials: Sequence[optuna.Trial], fixed: list[str]) -> list[Outcome]:
        """Outcomes of the trials, in their order; one whose settings do not compose fails alone."""
        outcomes: dict[int, Outcome] = {}
        jobs: dict[int, list[str]] = {}
        for trial in trials:
            drawn = [f"{key}={value}" for key, value in trial.params.items()]
            overrides = [*fixed, *drawn, f"trial={trial.number}"]
            try:
                self.loader.load_sweep_config(self.settings, overrides)
                jobs[trial.number] = overrides
            except Exception as error:
                outcomes[trial.number] = Outcome(tuple(drawn), "", "failed", error=explain(error))
        if jobs:
            returns = self.launcher.launch(list(jobs.values()), initial_job_idx=min(jobs))
            outcomes |= {number: job.return_value for number, job in zip(jobs, returns, strict=True)}
        return [_with_finite_value(outcomes[trial.number]) for trial in trials]


def _with_finite_value(outcome: Outcome) -> Outcome:
    if outcome.status != "finished" or (outcome.value is not None and math.isfinite(outcome.value)):
        return outcome
    return replace(outcome, status="failed", error=f"The objective is {outcome.value}.")


def suggestion(override: Override) -> tuple[Suggest, str]:
    """Return the function that draws a setting, and an override it might draw."""
    key, value = override.get_key_element(), override.value()
    if not isinstance(value, IntervalSweep | RangeSweep):
        choices = list(override.sweep_string_iterator())
        return lambda trial: trial.suggest_categorical(key, choices), f"{key}={choices[0]}"
    log = "log" in value.tags
    step: dict[str, Any] = {}
    if isinstance(value, RangeSweep):
        values = list(value.range())
        low, high, step = min(values), max(values), {"step": abs(value.step)}
    else:
        low, high = value.start, value.end
    if isinstance(low, int) and isinstance(high, int):
        return lambda trial: trial.suggest_int(key, low, high, log=log, **step), f"{key}={low}"
    return lambda trial: trial.suggest_float(key, float(low), float(high), log=log, **step), f"{key}={low}"
