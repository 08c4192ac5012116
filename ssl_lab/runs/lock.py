"""One process at a time trains in a run directory."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from ssl_lab.runs.directory import HEARTBEAT, read_json

LOCK = ".lock"


def lock_run(run_dir: Path, *, wait: bool = False) -> FileLock:
    """Hold the run directory until the lock is released or this process ends, however it ends.

    Where the file system has no locks, this is a warning.

    Raises:
        ValueError: If another process holds it, and this one is not to ``wait`` for it, or it cannot be written to.
    """
    lock = FileLock(run_dir / LOCK)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        try:
            holder = read_json(run_dir / HEARTBEAT)
        except ValueError:  # damaged
            holder = {}
        known = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
        raise ValueError(
            f"Another process{known} trains in {run_dir}. Wait for it, stop it, or choose another run_dir=."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise ValueError(
                f"Cannot train in {run_dir}: it cannot be written to ({error.strerror}). Choose another run_dir=."
            ) from error
        warnings.warn(
            f"The file system of {run_dir} has no locks ({error.strerror}), so nothing keeps a second process away. Start "
            "one process per run directory.",
            stacklevel=1,
        )
    return lock
