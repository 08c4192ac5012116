"""``ssl_lab.list``: what there is to choose from."""

from __future__ import annotations

import builtins

from ssl_lab.cli.commands.list import TITLES
from ssl_lab.cli.paths import choices


class Choices(dict[str, dict[str, str]]):
    """One line for each choice, by the name of its list: ``ssl_lab.list()["methods"]["simclr"]``."""

    def __repr__(self) -> str:
        """As ``ssl-lab list`` prints it."""
        lines = []
        for title, described in self.items():
            width = max(map(len, described), default=0)
            lines += ["", f"{title}  ({TITLES[title]}=)", *(f"  {name:<{width}}  {d}" for name, d in described.items())]
        return "\n".join(lines[1:])


def list(*names: str) -> Choices:
    """All that ``ssl-lab list`` knows, as a plain dict: methods, data, encoders, experiments, tasks and more.

    Args:
        names: Lists to give, such as ``methods``; all without.

    Raises:
        ValueError: If there is no such list.
    """
    if unknown := [name for name in names if name not in TITLES]:
        raise ValueError(f"There is no list of {unknown[0]!r}. Choose from: {', '.join(TITLES)}.")
    return Choices({title: dict(choices(TITLES[title])) for title in names or builtins.list(TITLES)})
