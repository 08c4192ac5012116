"""State of jobs in Slurm: waiting, running, ended, or not to be started without help."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

CANCELLED = "CANCELLED"
_ENDED_BY_SLURM = ("TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED")
# Reasons to wait that time alone removes.
_ORDINARY = ("None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Dependency", "Prolog", "Cleaning", "")
_REMIND_SEC = 600.0


@dataclass(frozen=True)
class Queued:
    """A job in the queue: its state, such as ``PENDING``, and why it waits."""

    state: str
    reason: str

    @property
    def held(self) -> bool:
        """Return whether it waits for someone to release it."""
        return "held" in self.reason.lower()


def read_queue() -> dict[str, Queued] | None:
    """The jobs of this user that wait, run or end, by id; None if Slurm does not answer."""
    output = _ask("squeue", "--noheader", "--me", "--array", "--format=%i|%T|%r")
    if output is None:
        return None
    jobs = (line.split("|", 2) for line in output.splitlines() if line.count("|") >= 2)
    return {job.strip(): Queued(state.strip(), reason.strip().strip("()")) for job, state, reason in jobs}


def last_state(job: str | None) -> str:
    """The state in which Slurm has seen a job last, such as ``OUT_OF_MEMORY``; ``unknown`` some minutes later."""
    output = _ask("scontrol", "show", "job", str(job)) or ""
    return next((word.removeprefix("JobState=") for word in output.split() if word.startswith("JobState=")), "unknown")


def ended_by_slurm(state: str) -> bool:
    """Return whether a job in this state was ended by Slurm or someone else, whatever the program said before."""
    return state == CANCELLED or state in _ENDED_BY_SLURM


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class Notices:
    """Reports once, then every ten minutes, why a queue is blocked if waiting alone does not help.

    Args:
        say: Called with each line.
        clock: Seconds that pass.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.say = say
        self.clock = clock
        self._said: dict[str, float] = {}

    def no_answer(self) -> None:
        """Slurm did not answer."""
        self._once("squeue does not answer; the trials are waited for until it does.", every=_REMIND_SEC)

    def look(self, queue: Mapping[str, Queued], names: Mapping[str, str], waiting: Collection[str]) -> None:
        """Tell of jobs that wait for more than time.

        Args:
            queue: What is in the queue.
            names: The trial of each job.
            waiting: Jobs that are waited for.
        """
        for job in sorted(waiting & queue.keys()):
            found = queue[job]
            if found.held:
                self._once(
                    f"{names[job]} does not start: Slurm holds job {job} ({found.reason}). Release it with: scontrol release "
                    f"{job}; or give it up with: scancel {job}"
                )
            elif found.state == "PENDING" and found.reason not in _ORDINARY:
                self._once(f"{names[job]} does not start yet: job {job} waits ({found.reason}).")

    def _once(self, line: str, *, every: float = _REMIND_SEC) -> None:
        now = self.clock()
        if now - self._said.get(line, -every) >= every:
            self._said[line] = now
            self.say(line)
