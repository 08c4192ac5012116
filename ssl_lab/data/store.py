"""The cache folder: what is expensive to prepare is built once, by one process, and appears complete or not at all."""

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


def remembered(kind: str, files: Iterable[Path], settings: Any, look: Callable[[], Any]) -> Any:
    """What ``look`` finds in files, as plain data; of more than 64 MiB it is kept in the cache folder until one changes.

    Args:
        kind: What is looked for, with a version: changes whenever ``look`` does.
        files: The files.
        settings: Plain data that it depends on too.
        look: Reads the files; what it raises is not kept.
    """
    status = [(str(file), os.stat(file)) for file in files]
    if sum(found.st_size for _, found in status) <= _READ_AGAIN_BYTES:
        return look()
    facts = [[path, found.st_size, found.st_mtime_ns, found.st_ctime_ns] for path, found in status]

    def build(folder: Path) -> None:
        (folder / "found.json").write_text(json.dumps(look()))

    return json.loads((build_once(f"{kind}-{fingerprint([facts, settings])}", build) / "found.json").read_text())


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
