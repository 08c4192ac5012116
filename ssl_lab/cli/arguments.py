"""Arguments of the command line: paths as they are written, everything else in Hydra's grammar.

Hydra reads values by a grammar in which ``=``, ``,``, brackets, quotes and blanks have meanings. A path may hold any of
them, so settings that name a path do not go through it. What else such a value may be is decided in this order:

1. ``null`` is no path.
2. A path that exists is that path.
3. Text in quotes, ``'...'``, is what Hydra makes of it, as in commands that older versions printed.
4. ``run=[A,B]`` and ``data.path=[A,B]`` are lists, ``data.path={train: A, test: B}`` is a mapping; in a sweep ``A,B`` and
   Hydra's ``choice(...)`` are values to try. Each part is again a path as it is written, and a comma belongs to
   the path where that makes one that exists.
5. Everything else is a path. ``~/`` at its beginning is the home directory.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

_ONE = {"ckpt", "out", "run_dir", "sweep_dir"}
"""Settings that name one path."""
_SEVERAL = {
    "run",
    "input",
    "query",
    "root",
    "path",
    "tokenizer",
    "target_tokenizer",
    "pretrained",
    "cache_dir",
    "save_dir",
}
"""Last words of settings that name a path, or several."""
_TEXTS = {"text", "prompt", "second_text", "question"}
"""Settings whose value is text as it is written: brackets and quotes belong to it."""
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_PLAIN = re.compile(r"(?!(?:true|false|null|inf|nan)$)(?:\.{0,2}/|[A-Za-z_])[\w./-]*", re.ASCII | re.IGNORECASE)
_SWEEP_FUNCTION = re.compile(r"(?:choice|glob|sort|shuffle|tag)\(.*\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Options of the commands that have no settings; errors are messages like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"Cannot read the arguments of {self.prog}: {message}. See {self.prog} --help.")


def path_argument(value: str) -> Path:
    """A path among the arguments of these commands.

    Raises:
        argparse.ArgumentTypeError: If it is empty, such as that of a shell variable that is not set, or a setting.
    """
    if not value.strip():
        raise argparse.ArgumentTypeError("a path is empty; give a path or leave it out")
    key, equals, path = value.partition("=")
    if equals and key in ("run", "run_dir", "out") and not _exists(value):
        raise argparse.ArgumentTypeError(f"{value!r} is not a path; give the path alone: {path}")
    return Path(value)


def count_argument(value: str) -> int:
    """A number of things among the arguments of these commands.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from 0 up")
    return int(value)


def with_raw_paths(args: Sequence[str], *, sweep: bool = False) -> list[str]:
    """Quote every path in the arguments, so that Hydra's grammar returns it unchanged.

    Args:
        args: Arguments of a command.
        sweep: Whether several values of a setting may be given.

    Raises:
        ValueError: If a setting names the empty path, such as that of a shell variable that is not set, or a text cannot be
            given.
    """
    return [_raw(arg, sweep=sweep) for arg in args]


def path_of(args: Sequence[str], key: str) -> Path | None:
    """The last path that is given for a key, or None.

    Raises:
        ValueError: If it is empty.
    """
    values = [arg.partition("=")[2] for arg in args if arg.startswith(f"{key}=")]
    if not values:
        return None
    _refuse_empty(key, values[-1])
    return Path(_unquoted(values[-1]))


def as_override(key: str, path: Path | str) -> str:
    """An override that sets a key to a path, whatever is in it."""
    return f"{key}={quote(str(path))}"


def quote(text: str) -> str:
    """Text as a value of Hydra's grammar that stands for itself."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if _PLAIN.fullmatch(text):
        return text
    if text == "???":  # a setting without a value, even in quotes
        text = "./???"
    return QuotedString(text=literal(text), quote=Quote.single).with_quotes()


def literal(value: Any) -> Any:
    """A value, or values below it, of a configuration that stand for themselves: nothing is an interpolation."""
    if isinstance(value, dict):
        return {key: literal(below) for key, below in value.items()}
    if isinstance(value, list):
        return [literal(below) for below in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)


def _raw(arg: str, *, sweep: bool) -> str:
    key, equals, value = arg.partition("=")
    name = key.lstrip("+")
    several = name.rpartition(".")[2] in _SEVERAL
    is_path = several or name in _ONE
    if name in ("hydra.run.dir", "hydra.sweep.dir"):
        _refuse_empty(key, value)
    if not equals or arg.startswith(("-", "~")) or name.startswith("hydra.") or name == "hydra":
        return arg
    if value.startswith("run:"):  # a run in the place of an encoder
        runs = re.split(",(?=run:)", value) if sweep and not _exists(value[4:]) else [value]
        # Whole: the new run's settings refer to it, and are read again from other folders.
        found = (str(Path(run).absolute()) if _exists(run) else _home(run) for run in (run[4:] for run in runs))
        return f"{key}={','.join(quote(f'run:{run}') for run in found)}"
    if name in _TEXTS:
        if value == "???":
            raise ValueError(
                f"Cannot read {key}=???, by which settings say that they have no value. Give another text."
            )
        return f"{key}={quote(value)}"
    if not is_path or value == "null" or (name.endswith("pretrained") and value in ("true", "false")):
        return arg
    _refuse_empty(key, value)
    if _exists(value):
        return f"{key}={quote(value)}"
    if _QUOTED.fullmatch(value):
        return arg
    if several and (inner := re.fullmatch(r"\[(.*)\]", value, re.DOTALL)):
        return f"{key}=[{','.join(map(_quoted, _split(inner[1])))}]"
    if several and (inner := re.fullmatch(r"\{(.*:.*)\}", value, re.DOTALL)):
        pairs = [pair.partition(":")[::2] for pair in re.split(r",\s*(?=\w+\s*:)", inner[1])]
        return f"{key}={{{','.join(f'{split.strip()}:{_quoted(path.strip())}' for split, path in pairs)}}}"
    if sweep and name not in ("out", "run_dir", "sweep_dir"):
        if _SWEEP_FUNCTION.fullmatch(value):
            return arg
        if len(parts := _split(value)) > 1:
            return f"{key}={','.join(map(_quoted, parts))}"
    return f"{key}={_quoted(value)}"


def _split(text: str) -> list[str]:
    """Paths with commas between them; a comma belongs to a path where that makes one that exists."""
    pieces = text.split(",")
    paths = []
    while pieces:
        joined = (",".join(pieces[:count]).strip() for count in range(len(pieces), 0, -1))
        found = next((path for path in joined if _exists(path) or _QUOTED.fullmatch(path)), pieces[0].strip())
        paths.append(found)
        del pieces[: found.count(",") + 1]
    return [path for path in paths if path]


def _quoted(text: str) -> str:
    return text if _QUOTED.fullmatch(text) or text == "null" else quote(_home(text))


def _unquoted(value: str) -> str:
    """The path that a value of the command line names."""
    if not _exists(value) and _QUOTED.fullmatch(value):
        return re.sub(r"\\(['\"\\])", r"\1", value[1:-1])
    return _home(value)


def _home(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~/") and not _exists(path) else path


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).exists()
    except (OSError, ValueError):  # too long, or a null byte
        return False


def _refuse_empty(key: str, value: str) -> None:
    if not value.strip() or value.strip() in ("''", '""'):
        raise ValueError(f"{key}= names no path: its value is empty. Give a path, or leave {key}= out.")
