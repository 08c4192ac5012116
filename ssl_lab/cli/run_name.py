"""The name that all processes of one run share, and the run directory with it.

torchrun, srun and plain environment variables start the command once per process; the ranks must come to one run directory
before they can talk to each other, and a name made of the time of day would differ.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

RUN_NAME = "SSL_LAB_RUN_NAME"
"""Environment variable that stands for the time of day in the default names of run and sweep directories."""
_SETTINGS = ("config.yaml", "fit.json")
"""Files that say that a run has begun."""
_NAMED_BY = ("run_dir=", "run=", "hydra.run.dir=")
_SWEEPS_NAMED_BY = ("sweep_dir=", "hydra.sweep.dir=")


def run_name(args: Sequence[str], *, sweep: bool, named_by: Sequence[str] = _NAMED_BY) -> str | None:
    """A name that all processes of a run find, and a requeued Slurm job finds again; None if the time of day will do.

    In a Slurm job it is made of the job's number and the command; under torchrun the first process to come chooses, by
    the time of day.

    Args:
        args: The command's arguments.
        sweep: Whether they ask for a sweep.
        named_by: How arguments begin that name a run directory.

    Raises:
        ValueError: If several processes were started by environment variables, which give no name.
    """
    if named := os.environ.get(RUN_NAME):
        return named
    if any(arg.startswith(tuple(_SWEEPS_NAMED_BY if sweep else named_by)) for arg in args):
        return None
    job = _slurm_job()
    if job is not None:
        return f"slurm_{job}_{hashlib.sha256(chr(0).join(args).encode()).hexdigest()[:6]}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from ssl_lab import distributed

        return distributed.first_proposal("ssl_lab/run_name", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    if os.environ.get("LOCAL_RANK") or os.environ.get("NODE_RANK"):
        key = "sweep_dir" if sweep else "run_dir"
        raise ValueError(
            "Several processes were started by environment variables (LOCAL_RANK or NODE_RANK is set), which do not share a "
            f"time of day to name their directory by. Give all of them the same {key}=, or the same {RUN_NAME}."
        )
    return None


def _slurm_job() -> int | None:
    """The number of the Slurm job; None in an interactive one, where each command is a new run."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # torch takes seconds

    return SLURMEnvironment.job_id()


@contextmanager
def named_run(args: Sequence[str], *, sweep: bool, named_by: Sequence[str] = _NAMED_BY) -> Iterator[bool]:
    """Within it, the configuration's default directories have the name of :func:`run_name`.

    Yields whether a directory is named by the time of day alone, as another process may name its own: see :func:`claim`.
    """
    before = os.environ.get(RUN_NAME)
    name = run_name(args, sweep=sweep, named_by=named_by)
    if name is not None:
        os.environ[RUN_NAME] = name
    try:
        yield name is None and not sweep and not any(arg.startswith(tuple(named_by)) for arg in args)
    finally:
        os.environ.pop(RUN_NAME, None)
        if before is not None:
            os.environ[RUN_NAME] = before


def claim(run_dir: Path) -> Path:
    """Make a directory that no other process has, nor an earlier call: this one, or one beside it with a number."""
    from ssl_lab.runs.lock import LOCK

    for number in count(1):
        found = run_dir if number == 1 else run_dir.with_name(f"{run_dir.name}_{number}")
        try:
            found.mkdir(parents=True, exist_ok=True)  # Hydra has made it
            if not any(found.iterdir()):
                os.close(os.open(found / LOCK, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return found
        except FileExistsError:
            continue
        except OSError:  # the lock of the run says why
            return found
    raise AssertionError


@contextmanager
def new_dir(folder: Path) -> Iterator[Path]:
    """Within it, a directory of its own below a folder, named by the time of day, that the ranks it starts find too."""
    from ssl_lab.engine.checkpoints.signals import is_first_rank

    given = os.environ.get(RUN_NAME)
    run_dir = folder / (given or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    if given is None and is_first_rank():
        run_dir = claim(run_dir)
        os.environ[RUN_NAME] = run_dir.name
    try:
        yield run_dir
    finally:
        if given is None:
            os.environ.pop(RUN_NAME, None)


@contextmanager
def removed_if_refused(run_dir: Path, *, parents: int = 0) -> Iterator[None]:
    """Within it, a directory that was empty goes again if its run is refused before the settings are written there.

    It stays where another process trains in it.

    Args:
        run_dir: The run directory.
        parents: How many folders above it go too, if they are empty.
    """
    from ssl_lab.engine.checkpoints.signals import is_first_rank
    from ssl_lab.runs.lock import LOCK, lock_run

    is_new = not run_dir.is_dir() or all(path.name == LOCK for path in run_dir.iterdir())
    try:
        yield
    except (ValueError, FileNotFoundError):
        if is_new and run_dir.is_dir() and is_first_rank():
            with suppress(ValueError):  # another process holds it, which may still read its data
                lock = lock_run(run_dir)
                try:
                    if not any(any(run_dir.rglob(name)) for name in _SETTINGS):
                        shutil.rmtree(run_dir, ignore_errors=True)
                        with suppress(OSError):
                            for folder in run_dir.parents[:parents]:
                                folder.rmdir()
                finally:
                    lock.release()
        raise
