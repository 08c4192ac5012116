"""Check output paths before anything is computed, and remove the remains of killed processes there."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_lab.files import DAY_SEC, flush_to_disk, is_alive, remove_if_left, temporaries, temporary_name, unchanged_sec
from ssl_lab.limited import UnreadableFileError, load_json
from ssl_lab.locks import HAS_LOCKS, flags, is_windows, lock

REPLACED = ".replaced"
"""Temporary suffix of a folder that is being replaced, where the file system cannot exchange two folders."""
_HALVES = ("checkpoints/last.partial", "checkpoints/best.partial")
_LOOKED_AT = 64 << 10  # bytes at either end of a file
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_output(
    out: Path,
    *,
    folder: bool = False,
    setting: str = "out",
    instead: str = "",
    ours: Callable[[Path], bool] | None = None,
) -> None:
    """Refuse an output that cannot be written, or would replace a file of the user's, before hours of work for it.

    A folder that is missing is made later; here the nearest one above it that exists is tried.

    Args:
        out: What is to be written.
        folder: Whether it is a folder rather than a file.
        setting: The setting that names it.
        instead: What else to give than another ``setting``, where the user has given none.
        ours: Whether a file that is there was written by the same command, which may replace it; None for any file.

    Raises:
        ValueError: If it is of the other kind, lies below a file, its folder cannot be written to, or it is a file that
            something else has written.
    """
    remedy = instead or f"Give {setting}{'' if setting.startswith('--') else '='} another place."
    if folder and out.exists() and not out.is_dir():
        raise ValueError(f"Cannot write to {out}: it is a file, and a folder is written. {remedy}")
    if not folder and out.is_dir():
        raise ValueError(f"Cannot write {out}: it is a folder, and a file is written. {remedy}")
    if not folder and out.exists() and not out.is_file():
        return  # a device or a pipe
    place = out if folder else Path(os.path.realpath(out)).parent
    while not place.exists() and not place.is_symlink() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"Cannot write {out}: {place} is not a folder. {remedy}")
    try:
        with tempfile.TemporaryFile(dir=place):  # without a name, where the file system can: a kill leaves nothing
            pass
    except OSError as error:
        raise ValueError(f"Cannot write {out}: {place} cannot be written to ({_reason(error)}). {remedy}") from error
    if not folder and out.is_file() and not os.access(out, os.W_OK):
        raise ValueError(f"Cannot write {out}: the file is read-only. {remedy}")
    if ours is not None and out.is_file() and out.stat().st_size and not ours(out):
        raise ValueError(
            f"Cannot write {out}: this command did not write the file that is there, and would replace it. Move it away, or "
            f"{remedy[:1].lower()}{remedy[1:]}"
        )


def marked(mark: bytes, *, begin: bytes = b"") -> Callable[[Path], bool]:
    """Recognises the files of one kind: by how they begin, and by what stands near the beginning or the end."""

    def is_ours(path: Path) -> bool:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(path.stat().st_size - _LOOKED_AT, 0))
            return head.startswith(begin) and (mark in head or mark in file.read())

    return is_ours


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def clear(*outs: Path, runs: Sequence[Path] = (), are_held: bool = False) -> None:
    """Remove what killed processes have left of outputs and in run directories, and say in one line how much that was.

    Nothing is removed but what has a name of :func:`ssl_lab.files.temporary_name`, or is a checkpoint that was being written,
    and only if its process is gone.

    Args:
        outs: The outputs; of folders, left-overs inside are removed too.
        runs: Run directories.
        are_held: Whether this process holds the locks of the runs.
    """
    places: dict[Path, int] = {}
    for out in (Path(os.path.realpath(out)) if out.is_symlink() else out for out in outs):
        found = [*temporaries(out.parent, of=out.name), *temporaries(out)]
        places[out.parent] = places.get(out.parent, 0) + sum(map(remove_if_left, found))
    for run in runs:
        folders = (run, run / "checkpoints", run / "replaced", run / "pictures", *(run / "pictures").glob("*/"))
        found = [path for folder in folders if not folder.is_symlink() for path in temporaries(folder)]
        halves = [path for name in _HALVES if _is_left_half(path := run / name, run, is_held=are_held)]
        for path in halves:
            path.unlink(missing_ok=True)
        places[run] = places.get(run, 0) + sum(map(remove_if_left, found)) + len(halves)
    if number := sum(places.values()):
        what = "file or folder" if number == 1 else "files or folders"
        where = ", ".join(str(place) for place, removed in places.items() if removed)
        print(f"Removed {number} unfinished {what} that killed processes had left in {where}.")


def _is_left_half(path: Path, run: Path, *, is_held: bool) -> bool:
    """Return whether a process that is gone was writing a checkpoint: it held the lock of the run."""
    try:
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file() or not os.access(path.parent, os.W_OK):
            return False
        if is_held:
            return True
        holder = load_json(run / "heartbeat.json", within=run)
        pid = holder.get("pid")
        is_gone = holder.get("host") == platform.node() and isinstance(pid, int) and not is_alive(pid)
        handle = os.open(run / ".lock", flags("O_RDONLY", "O_NOFOLLOW"))
    except (OSError, UnreadableFileError):
        return False
    try:
        lock(handle)
        return is_gone or unchanged_sec(path) > DAY_SEC
    except OSError:  # locked, or renamed meanwhile
        return False
    finally:
        os.close(handle)


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A new hidden folder beside ``out``, locked while this process lives, and removed at the end unless renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(temporary_name(out.name))
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY) if HAS_LOCKS else None
    try:
        if handle is not None:
            with suppress(OSError):  # not every file system has locks
                lock(handle)
        yield folder
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def write_folder(out: Path, write: Callable[[Path], None], *, may_replace: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder beside ``out``, and put it into its place at once.

    At each moment ``out`` is the old folder or the new one. Where the file system cannot exchange two folders, the old one
    lies beside for a moment, where :func:`restore` finds it.

    Args:
        out: The folder; may exist. Of a link, the folder that it leads to is replaced.
        write: Fills the folder that it is given.
        may_replace: Raises a ``ValueError`` if what is there must stay; asked just before.
    """
    out = Path(os.path.realpath(out))
    with unfinished_folder(out) as new:
        write(new)
        for path in [*new.rglob("*"), new]:
            flush_to_disk(path)
        may_replace(out)
        if not out.exists():
            new.rename(out)
        elif not exchange(new, out):
            old = out.with_name(f".{out.name}{REPLACED}")
            out.rename(old)
            new.rename(out)
            shutil.rmtree(old)
        flush_to_disk(out.parent)


def restore(out: Path) -> str:
    """Bring back a folder whose replacement was cut off between two renames, or remove it if the new one is there.

    Returns:
        What was done, as a sentence; empty if there was nothing to do.
    """
    out = Path(os.path.realpath(out))
    old = out.with_name(f".{out.name}{REPLACED}")
    if not old.is_dir():
        return ""
    if out.exists():
        shutil.rmtree(old)
        return f"Removed {old}, which a killed process had replaced by {out}."
    old.rename(out)
    return f"Restored {out}, which a killed process was replacing."


def exchange(a: Path, b: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    if is_windows():
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(b))
