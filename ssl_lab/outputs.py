"""Where a command writes: looked at before anything is computed, and rid of what a killed process has left there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_lab.files import UNFINISHED

REPLACED = ".replaced"
"""What a folder that is being replaced is called for a moment, where the file system cannot exchange two folders."""
_LEFT_AFTER_SEC = 60.0  # a younger one may be about to be locked
_FORGOTTEN_AFTER_SEC = 86_400.0  # an older one is left even where the file system has no locks
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_output(out: Path, *, folder: bool = False, setting: str = "out", instead: str = "") -> None:
    """Refuse an output that cannot be written, before hours of work for it.

    A folder that is missing is made later; here the nearest one above it that exists is tried.

    Args:
        out: What is to be written.
        folder: Whether it is a folder rather than a file.
        setting: The setting that names it.
        instead: What else to give than another ``setting``, where the user has given none.

    Raises:
        ValueError: If it is of the other kind, lies below a file, or its folder cannot be written to.
    """
    remedy = instead or f"Give {setting}= another place."
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
        raise ValueError(f"Cannot write {out}: {place} is no folder. {remedy}")
    try:
        with tempfile.TemporaryFile(dir=place):  # without a name, where the file system can: a kill leaves nothing
            pass
    except OSError as error:
        raise ValueError(f"Cannot write {out}: {place} cannot be written to ({_reason(error)}). {remedy}") from error
    if not folder and out.is_file() and not os.access(out, os.W_OK):
        raise ValueError(f"Cannot write {out}: the file is read-only. {remedy}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def remove_left_overs(out: Path, *, inside: bool = False) -> int:
    """Remove what processes that were killed have left of an output: hidden files and folders beside it.

    Each is locked by the process that writes it for as long as that lives, on this host or another.

    Args:
        out: The output.
        inside: Whether it is a folder, in which left-overs of any file are looked for.

    Returns:
        How many there were.
    """
    pattern = f".*{UNFINISHED}" if inside else f".{glob.escape(out.name)}.*{UNFINISHED}"
    places = (out if inside else out.parent).glob(pattern)
    return sum(_remove_if_left(path) for path in places)


def tell_left_overs(number: int, place: Path) -> None:
    """Print how many left-overs were removed, if there were any."""
    if number:
        what = "file or folder" if number == 1 else "files or folders"
        print(f"Removed {number} unfinished {what} that a killed process had left in {place}.")


def _remove_if_left(path: Path) -> bool:
    try:
        age = time.time() - path.lstat().st_mtime
        if path.is_symlink() or age < _LEFT_AFTER_SEC:
            return False
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # gone meanwhile, or someone else's
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES) or age < _FORGOTTEN_AFTER_SEC:
            return False
    finally:
        os.close(handle)
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A new hidden folder beside ``out``, locked while this process lives, and removed at the end unless renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}{UNFINISHED}")
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
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
            _flush(path)
        may_replace(out)
        if not out.exists():
            new.rename(out)
        elif not exchange(new, out):
            old = out.with_name(f".{out.name}{REPLACED}")
            out.rename(old)
            new.rename(out)
            shutil.rmtree(old)
        _flush(out.parent)


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
    return f"Brought {out} back, which a killed process was replacing."


def exchange(a: Path, b: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(b))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
