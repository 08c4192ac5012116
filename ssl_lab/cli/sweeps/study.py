"""A study of trials that several workers share, and that outlives each of them."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ssl_lab.cli.sweeps.grid import STOPPED, Outcome
from ssl_lab.extras import needed_to

if TYPE_CHECKING:
    import optuna

Suggest = Callable[["optuna.Trial"], Any]
"""Draws one parameter of a trial."""

_ALIVE, _ERROR, _RUN_DIR = "alive_at", "error", "run_dir"  # user attributes of a trial
_STATUS = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def import_optuna() -> Any:
    """The optional package.

    Raises:
        MissingPackageError: If it is not installed.
    """
    with needed_to("use hydra/sweeper=optuna"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_storage(url: str) -> Any:
    """The database; a writer of an SQLite file waits for others a minute, not five seconds."""
    optuna = import_optuna()
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=patience)


class SharedStudy:
    """Hands out ``num_trials`` trials over all workers and restarts without losing any.

    A worker marks its trials as alive every few seconds. One that stays silent was killed: its trial is taken over by
    another worker with the same parameters, hence in the same run directory. Trials are handed out under a file lock, so
    that workers have to share the folder of ``lock_path`` as they share the run directories; the clocks of their hosts have
    to agree within a fraction of ``lost_after_sec``.

    Args:
        open_study: Opens or creates the Optuna study.
        lock_path: File of the lock.
        space: How to draw each parameter.
        num_trials: Trials of the study.
        heartbeat_sec: Time between two signs of life.
        lost_after_sec: Silence after which a trial counts as lost.
    """

    def __init__(
        self,
        open_study: Callable[[], optuna.Study],
        lock_path: Path,
        space: Sequence[Suggest],
        *,
        num_trials: int,
        heartbeat_sec: float,
        lost_after_sec: float,
    ) -> None:
        self.lock = FileLock(lock_path)
        self.space = space
        self.num_trials = num_trials
        self.heartbeat_sec = heartbeat_sec
        self.lost_after_sec = lost_after_sec
        self._joined = False
        self._mine: list[optuna.Trial] = []
        self._telling = threading.Lock()
        with self.lock:  # two workers must not both create the tables
            self.study = open_study()

    def claim(self, count: int) -> list[optuna.Trial]:
        """Up to ``count`` trials for this worker: lost ones first, then new ones; empty if there is none to be had."""
        from optuna.trial import Trial, TrialState

        with self.lock:
            known = self.study.get_trials(deepcopy=False)
            if known and not self._joined:
                self.study.sampler.reseed_rng()  # or it would draw what the worker that began the study has drawn
            self._joined = True
            running = [trial for trial in known if trial.state == TrialState.RUNNING]
            silent_since = time.time() - self.lost_after_sec
            lost = [trial for trial in running if trial.user_attrs.get(_ALIVE, 0.0) < silent_since]
            claimed = [Trial(self.study, trial._trial_id) for trial in lost[:count]]
            waiting = sum(trial.state == TrialState.WAITING for trial in known)
            new = max(self.num_trials - len(known), 0) + waiting
            for trial in claimed:
                trial.set_user_attr(_ALIVE, time.time())
            for _ in range(min(count - len(claimed), new)):
                claimed.append(self.study.ask())
                claimed[-1].set_user_attr(_ALIVE, time.time())
            for trial in claimed:
                for suggest in self.space:
                    suggest(trial)
        return claimed

    def others_run(self) -> bool:
        """Return whether trials of other workers have not ended, and may still be lost."""
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @contextmanager
    def alive(self, trials: Sequence[optuna.Trial]) -> Iterator[None]:
        """Send heartbeats while these trials run; afterwards, any trial without a recorded end is free for others at once."""
        done = threading.Event()
        self._mine = list(trials)

        def beat() -> None:
            while not done.wait(self.heartbeat_sec):
                self._mark(time.time())

        thread = threading.Thread(target=beat, daemon=True, name="heartbeat of trials")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._mark(0.0)
            self._mine = []

    def _mark(self, alive_at: float) -> None:
        from optuna.exceptions import OptunaError

        with self._telling:
            for trial in self._mine:
                with suppress(OptunaError):  # a busy database: the next beat may be luckier
                    trial.set_user_attr(_ALIVE, alive_at)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Record how a trial ended; one that a signal stopped has not ended."""
        from optuna.trial import TrialState

        if outcome.status in STOPPED:
            return
        with self._telling:
            self._mine.remove(trial)
            if self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                return  # this worker had been silent for long, and another one has taken its place
            trial.set_user_attr(_RUN_DIR, outcome.run_dir)
            if outcome.status == "pruned":
                self.study.tell(trial.number, state=TrialState.PRUNED)
            elif outcome.status == "finished":
                self.study.tell(trial.number, outcome.value)
            else:
                trial.set_user_attr(_ERROR, outcome.error)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def trials(self) -> list[Outcome]:
        """Return the outcome of each trial of the study, by number, with values rounded for the eye."""
        return [
            Outcome(
                overrides=tuple(f"{name}={_rounded(value)}" for name, value in trial.params.items()),
                run_dir=trial.user_attrs.get(_RUN_DIR, ""),
                status=_STATUS[trial.state.name],
                value=trial.value,
                error=trial.user_attrs.get(_ERROR),
            )
            for trial in self.study.get_trials(deepcopy=False)
        ]

    def best(self) -> int | None:
        """Number of the best finished trial, if any has finished."""
        from optuna.trial import TrialState

        finished = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self.study.best_trial.number if finished else None


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def reporter(url: str, study_name: str, pruner: Any, number: int) -> Callable[[int, float], bool]:
    """Reports values of a trial that runs here, and asks whether to continue it.

    Args:
        url: The study's database.
        study_name: Its name there.
        pruner: Optuna's pruner.
        number: The trial's number.
    """

    @cache  # opened at the first report, by the rank that reports
    def opened() -> optuna.Trial:
        found = import_optuna()
        study = found.load_study(study_name=study_name, storage=open_storage(url), pruner=pruner)
        return found.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def report(epoch: int, value: float) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a resumed run repeats what it has reported
                opened().report(value, epoch)
            return bool(opened().should_prune())
        except import_optuna().exceptions.StorageInternalError as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            warnings.warn(
                f"The study in {url} does not answer ({reason}). The trial continues without pruning.", stacklevel=2
            )
            return False

    return report
