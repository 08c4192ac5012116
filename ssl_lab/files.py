"""Files replaced as a whole: a reader finds the old one or the new one, never a part."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".unfinished"
_LEFT_AFTER_SEC = 60.0  # younger ones may be about to be locked


def write_atomically(
    path: Path, write: Callable[[Path], None], *, through_link: bool = False, durable: bool = True
) -> None:
    """Let ``write`` fill a temporary file beside ``path`` and rename it over ``path``, which keeps its mode and owner.

    What an earlier process that was killed has left of the same file is removed.

    Args:
        path: The file; its folder is made if missing.
        write: Writes the file that it is given.
        through_link: Whether a link stays and the file it leads to is replaced, as is right for a file that the user
            names. In a run directory, which may be someone else's, a link is replaced by a file.
        durable: Whether the content is flushed to the disk before the old one goes.

    Raises:
        OSError: If the file must not be written, or is no file.
    """
    target = Path(os.path.realpath(path)) if through_link else path
    target.parent.mkdir(parents=True, exist_ok=True)
    known = target.exists() and (through_link or not target.is_symlink())
    if known and not target.is_file() and not target.is_dir():
        write(target)  # a device or pipe, such as /dev/stdout, takes it as it comes
        return
    if known and target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "It is a folder, not a file", str(path))
    if known and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "The file must not be written to", str(path))
    _remove_left_overs(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{UNFINISHED}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write(temporary)
        if known:
            _take_over(target, temporary)
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def replace_file(path: Path, content: bytes, *, through_link: bool = False, durable: bool = True) -> Path:
    """:func:`write_atomically` with the content at hand; returns ``path``."""
    write_atomically(
        path, lambda temporary: _write_bytes(temporary, content), through_link=through_link, durable=durable
    )
    return path


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _take_over(old: Path, new: Path) -> None:
    """Give the new file owner, group, mode and access list of the old one, as far as this user may."""
    facts = old.stat()
    for owner, group in ((facts.st_uid, -1), (-1, facts.st_gid)):
        with suppress(OSError):
            os.chown(new, owner, group)
    with suppress(OSError):
        shutil.copystat(old, new)
    os.chmod(new, facts.st_mode & 0o777)
    os.utime(new)


def _remove_left_overs(target: Path) -> None:
    """Remove temporary files of this one whose process has gone, and with it its lock."""
    pattern = f".{glob.escape(target.name)}.*.*{UNFINISHED}"
    for path in target.parent.glob(pattern):
        with suppress(OSError), path.open("rb+") as file:
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_SEC:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
