"""Files that the rows of a table name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lab.data.files.layout import first_of


@dataclass(frozen=True, kw_only=True)
class Referenced:
    """Files named by rows that exist, and files beside them that no row names.

    Attributes:
        real: What stands for the real file of each name: device and inode, or the name if nothing is there.
        facts: Name, size in bytes and times in ns of each named file: plain data that change whenever a file does.
        missing: Names of which there is no file.
        unnamed: Files of the same kinds in the folders of named ones.
    """

    real: dict[str, tuple[int, int] | str]
    facts: list[Any]
    missing: list[str]
    unnamed: list[str]

    def notes(self) -> list[str]:
        """Describe the missing and the unused files."""
        cases = {"named by a row but missing": self.missing, "named by no row": self.unnamed}
        return [
            f"{len(names):,} file{'s' * (len(names) > 1)} {case} ({first_of(names, num=2)})"
            for case, names in cases.items()
            if names
        ]


def find_referenced(names: Iterable[str], root: Path, kinds: Collection[str]) -> Referenced:
    """Look for named files.

    Args:
        names: Paths relative to the root, or absolute ones; of each its first occurrence counts.
        root: The folder.
        kinds: Endings of files that might have been named.
    """
    real: dict[str, tuple[int, int] | str] = {}
    facts: list[Any] = []
    missing = []
    for name in dict.fromkeys(names):
        try:
            found = os.stat(root / name)
        except (OSError, ValueError):  # no such file, or no file can have this name
            missing.append(name)
            real[name] = name
            facts.append([name, -1])
            continue
        real[name] = (found.st_dev, found.st_ino)
        facts.append([name, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    known, gone = set(real.values()), set(missing)
    unnamed = []
    for folder in sorted({os.path.dirname(root / name) for name in real if name not in gone}):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if os.path.splitext(entry.name)[1].lower() in kinds and not entry.name.startswith(".") and entry.is_file():
                status = entry.stat()
                if (status.st_dev, status.st_ino) not in known:
                    unnamed.append(os.path.relpath(entry.path, root))
    return Referenced(real=real, facts=facts, missing=missing, unnamed=unnamed)
