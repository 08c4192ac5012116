"""Files replaced as a whole: a reader finds the old one or the new one, never a part.

What is being written has a hidden name that tells of what, on which host and by which process, and is locked while that
process lives. So others can recognise what a killed process has left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ssl_lab.locks import HAS_LOCKS, flags, is_windows, lock

UNFINISHED = ".unfinished"
_NAME = re.compile(r"\.(?P<of>.+)\.((?P<host>[0-9a-f]{6})-)?(?P<pid>\d+)\.[0-9a-f]{8}\.unfinished")
_LEFT_AFTER_SEC = 60.0  # younger ones may be about to be locked
DAY_SEC = 86_400.0
"""After this time without a change something is left even where locks and processes cannot be seen."""
_found_in: dict[
    Path, dict[str, list[Path]]
] = {}  # temporary files by folder and name, when this process first wrote there


def temporary_name(name: str) -> str:
    """A new hidden name for what this process writes and then renames to ``name``."""
    return f".{name}.{_host()}-{os.getpid()}.{secrets.token_hex(4)}{UNFINISHED}"


def is_temporary(name: str, *, of: str | None = None) -> bool:
    """Return whether a name is one of :func:`temporary_name`, of any file or of one."""
    match = _NAME.fullmatch(name)
    return match is not None and of in (None, match["of"])


def temporaries(folder: Path, *, of: str | None = None) -> list[Path]:
    """List the temporary files in a folder, of any file or of one."""
    with suppress(OSError), os.scandir(folder) as items:
        return [folder / item.name for item in items if is_temporary(item.name, of=of)]
    return []


def remove_if_left(path: Path) -> bool:
    """Remove a temporary file or folder whose process is gone; whether it was.

    A process of this host is gone if its number is free, or was given away again and nothing is locked. Of another host,
    and of file systems without locks, a day without a change must pass.
    """
    match = _NAME.fullmatch(path.name)
    try:
        if match is None or path.is_symlink():
            return False
        age = unchanged_sec(path)
        handle = os.open(path, flags("O_RDONLY", "O_NONBLOCK"))
    except OSError:  # gone meanwhile, or someone else's
        return False
    try:
        lock(handle)
        here = match["host"] == _host()
        least = (_LEFT_AFTER_SEC if is_alive(int(match["pid"])) else 0.0) if here else DAY_SEC
    except OSError as error:
        least = float("inf") if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else DAY_SEC
    finally:
        os.close(handle)
    if age < least:
        return False
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True


def unchanged_sec(path: Path) -> float:
    """For how long a file, or a folder with all that is in it, has not changed."""
    newest = max(item.lstat().st_mtime for item in [path, *(path.rglob("*") if path.is_dir() else ())])
    return time.time() - newest


def is_alive(pid: int) -> bool:
    """Return whether this host has a process of this number; on Windows, which cannot say, it counts as alive."""
    if is_windows():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    return hashlib.blake2s(socket.gethostname().encode(), digest_size=3).hexdigest()


def write_atomically(
    path: Path, write: Callable[[Path], None], *, through_link: bool = False, durable: bool = True
) -> None:
    """Let ``write`` fill a temporary file beside ``path`` and rename it over ``path``, which keeps its mode and owner.

    What a process that was killed before has left of the same file is removed. For that each folder is listed once per
    process, so that writing many files takes the same time for each.

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
    _remove_what_is_left_of(target)
    temporary = target.with_name(temporary_name(target.name))
    handle = os.open(temporary, flags("O_RDWR", "O_CREAT", "O_EXCL", "O_CLOEXEC"), 0o666)
    if not HAS_LOCKS:
        os.close(handle)  # Windows renames no open file
    try:
        with suppress(OSError):  # not every file system has locks
            lock(handle)
        write(temporary)
        if known:
            _take_over(target, temporary)
        if durable:
            flush_to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if HAS_LOCKS:
            os.close(handle)


def flush_to_disk(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk."""
    if is_windows() and path.is_dir():
        return  # NTFS writes names by itself
    handle = os.open(path, flags("O_RDWR" if is_windows() else "O_RDONLY"))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_what_is_left_of(target: Path) -> None:
    folder = target.parent.absolute()
    if folder not in _found_in:
        _found_in[folder] = {}
        for path in temporaries(folder):
            if match := _NAME.fullmatch(path.name):
                _found_in[folder].setdefault(match["of"], []).append(path)
    for path in _found_in[folder].pop(target.name, ()):
        remove_if_left(path)


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
        with suppress(OSError, AttributeError):  # Windows has no chown
            os.chown(new, owner, group)
    with suppress(OSError):
        shutil.copystat(old, new)
    os.chmod(new, facts.st_mode & 0o777)
    os.utime(new)
