"""Signals that ask a run to stop, and the scheduler that starts it again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from types import FrameType

STOP_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; preemption, or the end of a job; some time before a Slurm job's time is over (``--signal=USR1@120``), which Windows
lacks."""

_WAIT_SEC = 120
_listening = False


class InterruptedRunError(BaseException):
    """A signal asked the run to stop; what had to be saved is saved.

    No ``Exception``, since it may come anywhere, and nothing that expects errors may take it for one of them.

    Attributes:
        signal_name: The signal, such as ``SIGTERM``.
    """

    def __init__(self, message: str, signal_name: str) -> None:
        super().__init__(message)
        self.signal_name = signal_name

    @property
    def status(self) -> str:
        """Return the status for the run's summary: ``interrupted`` by hand, or ``preempted``."""
        return "interrupted" if self.signal_name == "SIGINT" else "preempted"


def stop_on_signals() -> None:
    """From now on SIGTERM and SIGUSR1 raise :class:`InterruptedRunError` in the main thread.

    During training :class:`SaveCheckpoint` takes them over and saves first; this is for the time before and after, in
    which a job that just died would not be started again.
    """
    global _listening
    _listening = True
    for number in STOP_SIGNALS[1:]:
        try:
            signal.signal(number, _stop)
        except ValueError:  # not the main thread: signals stay as they are
            return


def stop_listening(*, process_ends: bool) -> None:
    """The work is done: a signal that comes now has nothing to stop.

    Args:
        process_ends: Ignore them from now on, as Python gives up its handlers before the process is gone.
    """
    global _listening
    if _listening and process_ends:
        for number in STOP_SIGNALS[1:]:
            signal.signal(number, signal.SIG_IGN)
    _listening = False


def _stop(number: int, frame: FrameType | None) -> None:
    if not _listening:
        return
    name = signal.Signals(number).name
    raise InterruptedRunError(
        f"{name} stopped the command outside of training; the last checkpoint, if there is one, is as it was. The same "
        "run directory resumes from there.",
        name,
    )


def requeue(stopped: InterruptedRunError) -> None:
    """Have Slurm start this process's batch job again, if it runs in one, and wait for the end.

    Nothing happens outside of Slurm, after Ctrl-C, and in a job that Slurm does not call running any more: it was
    cancelled, or is over its time. Rank 0 speaks to Slurm; the others wait with it, since a job whose ranks leave early
    may be taken for failed.
    """
    job = slurm_job()
    if job is None or stopped.status == "interrupted":
        return
    try:
        state = _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T")
        if state.stdout.strip() not in ("RUNNING", "SIGNALING"):
            return
        if is_first_rank():
            if _slurm("scontrol", "requeue", job).returncode != 0:
                return  # no batch job, or one that must not be started again
            print(f"ssl-lab: {stopped.signal_name}; job {job} is queued again.", flush=True)
    except (OSError, subprocess.TimeoutExpired):
        return
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    time.sleep(_WAIT_SEC)  # until Slurm ends the job


def is_first_rank() -> bool:
    """Return whether this process is the one that writes, before ranks know each other."""
    env = os.environ
    if "RANK" in env:
        return int(env["RANK"]) == 0
    own = ("LOCAL_RANK", "NODE_RANK") if "LOCAL_RANK" in env or "NODE_RANK" in env else ("SLURM_PROCID",)
    return all(int(env.get(name, 0)) == 0 for name in own)


def slurm_job() -> str | None:
    """The id of the job this process runs in; in an array ``<array>_<task>``.

    The last task to start has the id of the array itself as ``SLURM_JOB_ID``, by which Slurm would requeue all tasks.
    """
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)
