"""The cache folder: prepared data are built once, by one process, and appear complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from ssl_lab.outputs import clear, unfinished_folder

_READ_AGAIN_BYTES = 64 << 20


def cache_folder() -> Path:
    """``$SSL_LAB_CACHE``, by default ``~/.cache/ssl_lab``."""
    return Path(os.environ.get("SSL_LAB_CACHE", "~/.cache/ssl_lab")).expanduser()


def fingerprint(facts: Any) -> str:
    """Short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def status_of(files: Iterable[Path]) -> tuple[list[Any], int]:
    """Path, size and times of each file, plain data that change when a file does, and the size of all in bytes."""
    status = [(str(file), os.stat(file)) for file in files]
    facts = [[path, found.st_size, found.st_mtime_ns, found.st_ctime_ns] for path, found in status]
    return facts, sum(found.st_size for _, found in status)


def remembered(kind: str, facts: Any, look: Callable[[], Any], *, num_bytes: int) -> Any:
    """Return the result of ``look``, as plain data; keep it in the cache folder if it reads more than 64 MiB.

    Args:
        kind: What is looked for, with a version: changes whenever ``look`` does.
        facts: Plain data that change whenever what it reads does.
        look: Reads; what it raises is not kept.
        num_bytes: How much it reads.
    """
    if num_bytes <= _READ_AGAIN_BYTES:
        return look()

    def build(folder: Path) -> None:
        (folder / "found.json").write_text(json.dumps(look()))

    return json.loads((build_once(f"{kind}-{fingerprint(facts)}", build) / "found.json").read_text())


def build_once(key: str, build: Callable[[Path], None]) -> Path:
    """The folder ``key`` of the cache; built if it is missing, while other processes that want it wait.

    Args:
        key: Name of the folder; must change whenever the content would.
        build: Fills an empty folder, which is renamed to its final name when it returns.

    Raises:
        ValueError: If the cache folder cannot be created or written to.
    """
    folder = cache_folder() / key
    if folder.is_dir():
        return folder
    lock = Path(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise ValueError(
            f"Prepared data are kept in {folder.parent}, which cannot be written to: {error}. Set the environment "
            "variable SSL_LAB_CACHE to a folder that can."
        ) from error
    with FileLock(lock):
        if not folder.is_dir():
            clear(cache_folder())
            with unfinished_folder(folder) as unfinished:
                build(unfinished)
                unfinished.rename(folder)
    return folder
