"""``ssl-lab COMMAND --help`` of commands with settings: examples, then each setting with its default and meaning.

All of it is read from ``conf/COMMAND.yaml``: its first comment, the commands in the comments below, and the comment beside
each key. A comment ``Begin with:`` names settings of groups, as ``FILE.KEY``, that a new user needs first.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from dataclasses import dataclass

from ssl_lab.cli.paths import config_dir

_GROUP = re.compile(r"  - ([\w@/.]+): ([\w.]+)(?:  # (.*))?$")
_KEY = re.compile(r"(\w+): ((?:'[^']*'|\"[^\"]*\"|[^#])*?)(?:\s+# (.*))?$")
_FIRST = " Begin with:"
_MOST = 16  # characters of a default in its column


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """Settings of a command for a reader, from ``conf/COMMAND.yaml``.

    Attributes:
        purpose: One line.
        examples: Commands, each with its comment.
        bases: Commands whose settings it takes as well.
        first: Name, default and meaning of settings of groups that a new user needs first.
        groups: Name, default choice and meaning of each group.
        keys: Name, default and meaning of each key; the default ``???`` must be given.
    """

    purpose: str
    examples: tuple[str, ...]
    bases: tuple[str, ...]
    first: tuple[tuple[str, str, str], ...]
    groups: tuple[tuple[str, str, str], ...]
    keys: tuple[tuple[str, str, str], ...]


def command_settings(name: str) -> CommandSettings:
    """Read the settings of a command."""
    lines = (config_dir() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").rstrip() for line in lines if line.startswith("#")]
    groups = [found.groups(default="") for found in map(_GROUP.match, lines) if found]
    keys = [found.groups(default="") for found in map(_KEY.match, lines) if found]
    return CommandSettings(
        purpose=head[0].strip(),
        examples=tuple(line.strip() for line in head if line.startswith("   ")),
        first=tuple(
            _of_group(place) for line in head if line.startswith(_FIRST) for place in line[len(_FIRST) :].split()
        ),
        bases=tuple(line[4:] for line in lines if re.fullmatch(r"  - [a-z]+", line)),
        groups=tuple((group, choice, meaning) for group, choice, meaning in groups),
        keys=tuple((key, default, meaning) for key, default, meaning in keys if key not in ("defaults", "hydra")),
    )


def _of_group(place: str) -> tuple[str, str, str]:
    """Name, default and meaning of a setting in the file of a group, ``optim/adamw.lr``."""
    file, _, key = place.rpartition(".")
    lines = (config_dir() / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    default, meaning = next((found[2], found[3]) for found in map(_KEY.match, lines) if found and found[1] == key)
    return f"{file.partition('/')[0]}.{key}", default, meaning


def help_text(name: str) -> str:
    """The help of a command with settings."""
    settings = command_settings(name)
    parts = [f"ssl-lab {name}: {settings.purpose}"]
    if settings.examples:
        parts.append("\n".join(["Examples:", *(f"  {example}" for example in settings.examples)]))
    if settings.first:
        parts.append(_table("To begin with (the defaults may depend on the choices below):", settings.first))
    if settings.groups:
        parts.append(_table("Groups, given as group=choice (ssl-lab list GROUP shows the choices):", settings.groups))
    parts.append(_table("Settings, given as key=value:", settings.keys))
    parts += [f"Also all settings of ssl-lab {base}: ssl-lab {base} --help" for base in settings.bases]
    return "\n\n".join(parts)


def _table(title: str, rows: tuple[tuple[str, str, str], ...]) -> str:
    """Rows of key, default and meaning, the meaning wrapped at the width of the terminal."""
    shown = [(key, _short(default), meaning) for key, default, meaning in rows]
    key_width, default_width = (max(len(row[place]) for row in shown) for place in (0, 1))
    indent = " " * (key_width + default_width + 6)
    width = max(shutil.get_terminal_size().columns, len(indent) + 30)
    lines = [title]
    for key, default, meaning in shown:
        first = f"  {key:<{key_width}}  {default:<{default_width}}  "
        lines += textwrap.wrap(meaning, width, initial_indent=first, subsequent_indent=indent) or [first.rstrip()]
    return "\n".join(lines)


def _short(default: str) -> str:
    if default == "???":
        return "(required)"
    if default.startswith("runs/${") or len(default) > _MOST:
        return "..."
    return default
