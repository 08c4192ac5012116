"""Sweeps on Slurm: submit jobs, follow their states and report failed trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from ssl_lab.cli.arguments import literal
from ssl_lab.cli.experiments import drop_replaced
from ssl_lab.cli.resume import begin
from ssl_lab.cli.sweeps.grid import Outcome, distinguish
from ssl_lab.cli.sweeps.slurm_queue import CANCELLED, Notices, ended_by_slurm, last_state, read_queue
from ssl_lab.engine.checkpoints.signals import InterruptedRunError, is_first_rank
from ssl_lab.extras import needed_to
from ssl_lab.runs.directory import read_json

_POLL_SEC = 5.0
_ENDED = ("finished", "pruned", "failed", "interrupted", "preempted")
_OF_ALL_EXECUTORS = ("cpus_per_task", "gpus_per_node", "mem_gb", "name", "nodes", "stderr_to_stdout", "tasks_per_node")
# A signal that comes while Python and its libraries are loading would kill a job that nothing puts back into the queue.
# Until the trial listens, signals pass it by; a preempted job then is requeued at the end of its grace.
# The job's folder is no place to import libraries from.
_PYTHON = f"env --ignore-signal=TERM,USR1 {sys.executable} -P"


@dataclass
class Trial:
    """One trial of a sweep, and the job it runs in.

    Attributes:
        overrides: Its settings.
        name: Those that are not the same in all trials.
        index: Its number in the sweep.
        run_dir: Where it lies.
        job: Its Slurm job, if it needs one.
        log: What the job's first task prints.
        problem: Why it has not finished, if it will not.
        summary: What its run says of itself.
        before: What it said before the job.
        cancelled: Whether someone has cancelled its job.
    """

    overrides: list[str]
    name: str
    index: int
    run_dir: Path
    job: str | None = None
    log: Path | None = None
    problem: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def outcome(self) -> Outcome:
        """Return its outcome."""
        status = str(self.summary.get("status", "queued"))
        value = (self.summary.get("objective") or {}).get("value")
        overrides, run_dir = tuple(self.overrides), str(self.run_dir)
        if self.problem is None:
            return Outcome(overrides, run_dir, status, value)
        problem = self.problem + (f" Log: {self.log}" if self.log else "")
        if self.cancelled:
            return Outcome(overrides, run_dir, "cancelled", value, problem)
        return Outcome(overrides, run_dir, status if status in _ENDED else "failed", value, problem)

    def look(self) -> None:
        """Read how the job ended: Slurm's state takes precedence over the run's own summary."""
        self.summary = read_json(self.run_dir / "summary.json")
        if self.summary.get("status") in ("finished", "pruned"):
            return
        state = last_state(self.job)
        self.cancelled = state == CANCELLED
        said = None if self.summary == self.before or ended_by_slurm(state) else self.summary.get("error")
        if self.cancelled:
            said = f"Job {self.job} was cancelled."
        self.problem = said or f"Job {self.job} ended ({state}) before the trial did."


def plan(
    config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]], first_index: int
) -> list[Trial]:
    """The trials of a sweep; those whose directory holds another run already know their problem."""
    before = HydraConfig.instance().cfg
    trials = []
    for index, (overrides, name) in enumerate(zip(job_overrides, distinguish(job_overrides), strict=True), first_index):
        cfg = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(cfg.hydra.job):
            cfg.hydra.job.num, cfg.hydra.job.id = index, str(index)
        HydraConfig.instance().set_config(cfg)  # names of directories are made of it
        trial = Trial(list(overrides), name, index, Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir)
        task_cfg = deepcopy(cfg)
        with open_dict(task_cfg):
            del task_cfg["hydra"]
            task_cfg.run_dir = literal(str(trial.run_dir))
        drop_replaced(task_cfg, cfg.hydra.runtime.choices, trial.overrides)
        try:
            if begin(task_cfg, trial.run_dir).finished:
                trial.look()
        except (ValueError, OSError) as error:
            trial.problem = str(error)
        trials.append(trial)
    HydraConfig.instance().cfg = before
    return trials


def needs_job(trial: Trial) -> bool:
    """Return whether a trial has anything left to do."""
    return trial.problem is None and not trial.summary


def submit(call: Callable[..., Any], trials: Sequence[Trial], params: Mapping[str, Any], state: Any) -> None:
    """Queue the trials as one job array.

    Raises:
        MissingPackageError: If submitit is not installed.
        ValueError: If this is no machine of a Slurm cluster.
        RuntimeError: If Slurm refuses, with its own words.
    """
    with needed_to("use hydra/launcher=slurm"):
        import submitit

    options = dict(params)
    folder = options.pop("submitit_folder")
    timeout_min = options.pop("timeout_min")
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_python=_PYTHON)
    except RuntimeError as error:
        raise ValueError(
            "hydra/launcher=slurm submits jobs with sbatch and srun, but there is no srun here. Start the sweep on a "
            "machine of the cluster, or leave hydra/launcher= out."
        ) from error
    executor.update_parameters(
        timeout_min=timeout_min,
        # Ranks do not wait for one that has died; a log keeps the earlier lives of its job.
        slurm_srun_args=["--kill-on-bad-exit=1", "--open-mode=append"],
        **{name if name in _OF_ALL_EXECUTORS else f"slurm_{name}": value for name, value in options.items()},
    )
    arguments = [(trial.overrides, "hydra.sweep.dir", trial.index, str(trial.index), state) for trial in trials]
    for trial, job in zip(trials, executor.map_array(call, *zip(*arguments, strict=True)), strict=True):
        trial.job, trial.before = job.job_id, read_json(trial.run_dir / "summary.json")
        trial.log = job.paths.folder / f"{job.job_id}_0_log.out"


def resources(trainer: DictConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks and GPUs of a node as numbers: a task for each device.

    Raises:
        ValueError: If the trainer takes all GPUs there are, and nothing says how many.
    """
    devices, gpus = params["tasks_per_node"], params["gpus_per_node"]
    on_gpus = trainer.accelerator in ("gpu", "cuda")
    if devices in ("auto", -1, "-1"):
        if on_gpus and gpus is None:
            raise ValueError(
                "trainer.devices=auto takes all GPUs of a job, but not how many it should get. Set "
                "hydra.launcher.gpus_per_node."
            )
        tasks = gpus or 1
    else:
        tasks = len(devices) if isinstance(devices, list) else int(devices)
    return {"tasks_per_node": tasks, "gpus_per_node": tasks if on_gpus and gpus is None else gpus}


def wait_for(trials: Sequence[Trial]) -> None:
    """Return when the jobs of all trials have ended, and say so one by one.

    Raises:
        InterruptedRunError: At Ctrl-C; the jobs continue.
    """
    waiting = {trial.job: trial for trial in trials if trial.job}
    jobs = sorted({job.partition("_")[0] for job in waiting})
    total = len(waiting)
    notices = Notices(partial(print, flush=True))
    names = {job: trial.name for job, trial in waiting.items()}
    try:
        while waiting:
            queue = read_queue()
            if queue is None:
                notices.no_answer()
            else:
                notices.look(queue, names, waiting.keys())
                for job in sorted(waiting.keys() - queue.keys()):
                    trial = waiting.pop(job)
                    trial.look()
                    ended = "cancelled" if trial.cancelled else f"failed: {trial.problem}"
                    done = ended if trial.problem else "finished"
                    print(f"{total - len(waiting)} of {total} trials: {trial.name} {done}", flush=True)
            if waiting:
                time.sleep(_POLL_SEC)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"No longer waiting; the jobs continue. Cancel them with: scancel {' '.join(jobs)}.", "SIGINT"
        ) from error


def returns(trials: Sequence[Trial]) -> list[JobReturn]:
    """Return the results of the trials for a sweeper."""
    results = []
    for trial in trials:
        result = JobReturn(overrides=trial.overrides, status=JobStatus.COMPLETED)
        result.return_value = trial.outcome
        results.append(result)
    return results


def conclude(returned: JobReturn) -> None:
    """Inside a job: end this task as failed if the trial has failed, or was stopped and not queued again.

    Raises:
        SystemExit: Then. As a success of ranks other than the first if a signal stopped the trial: the first task that
            fails ends all, and rank 0 may not have written everything.
    """
    status = returned.return_value.status
    if status == "failed" or (status in ("interrupted", "preempted") and is_first_rank()):
        sys.exit(1)
    if status in ("interrupted", "preempted"):
        sys.exit(0)
