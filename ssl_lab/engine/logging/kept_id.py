"""The id under which a tracker knows a run, so that a resumed run continues there."""

from __future__ import annotations

import re
from pathlib import Path

from ssl_lab.files import replace_file
from ssl_lab.limited import read_text


class KeptId:
    """An id in ``<run_dir>/<tracker>/id.txt``.

    Args:
        run_dir: The run directory.
        tracker: Name of the tracker, such as ``mlflow``.
    """

    def __init__(self, run_dir: str | Path, tracker: str) -> None:
        self.path = Path(run_dir) / tracker / "id.txt"
        self._is_forgotten = False

    def read(self) -> str | None:
        """Return the id; None if there is none, or :meth:`forget` was called.

        Raises:
            ValueError: If the file holds something else.
        """
        if self._is_forgotten or not self.path.is_file():
            return None
        found = read_text(self.path).strip()
        if not re.fullmatch(r"[\w-]{1,64}", found):
            raise ValueError(f"Cannot read the id in {self.path}: found {found[:80]!r}. Remove the file.")
        return found

    def keep(self, id: str) -> None:
        """Write an id in one step: a killed process leaves this one or the one before."""
        self._is_forgotten = False
        replace_file(self.path, id.encode())

    def forget(self) -> None:
        """Let the run get another id."""
        self._is_forgotten = True


def short_name(run_dir: str | Path) -> str:
    """The last two folders of a run directory, by which people recognise a run."""
    return "/".join(Path(run_dir).absolute().parts[-2:])
