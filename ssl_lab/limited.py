"""Files that others may have written, read as data within limits: whatever they hold, reading ends, soon and in one way."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ssl_lab.locks import flags

MAX_BYTES = 4 << 20
"""Of a YAML, JSON or text file; a run's own have some kilobytes."""
MAX_TABLE_BYTES = 256 << 20
"""Of a CSV file."""
MAX_DEPTH = 64
"""Of mappings and lists within each other."""
_MAX_EXPANDED = 4 << 20  # characters of a YAML file once each alias is replaced by what it stands for
_NODE = 16  # characters that a node counts beside its text
_MAX_LINE = 1 << 20
_MAX_COLUMNS = 20_000
_LONG_NUMBER = re.compile(r"[-+]?[0-9.][0-9a-fA-FxXob_:.]{400,}")
_YAML: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableFileError(ValueError):
    """A file that exists but cannot be read in its format.

    Args:
        path: The file.
        reason: Why, in words that end a sentence.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}).")
        self.path = path
        self.reason = reason

    @property
    def sentence(self) -> str:
        """The message with the name of the file alone."""
        return f"{self.path.name} cannot be read ({self.reason})."


class _Loader(_YAML):  # type: ignore[misc]
    """Safe, and of the same opinion as OmegaConf: ``1e-3`` is a number, a date is text, no key occurs twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys differ."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in _YAML.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789.")
)


def open_regular(path: Path, *, within: Path | None = None) -> BinaryIO:
    """Open a regular file: no folder, pipe or device, which could block for ever or never end.

    Args:
        path: The file, or a link to it.
        within: The folder that a link must not lead out of; None lets it lead anywhere.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: If it is something else, or must not be read.
    """
    try:
        if within is not None and _leads_out(path, within):
            raise UnreadableFileError(path, f"it is a link that leads out of {within.name or within}")
        handle = os.open(path, flags("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY"))
    except FileNotFoundError:
        if path.is_symlink():
            raise UnreadableFileError(path, "it is a link to nothing") from None
        raise
    except OSError as error:
        raise UnreadableFileError(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        kind = "a folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "a pipe or device"
        os.close(handle)
        raise UnreadableFileError(path, f"it is {kind}")
    return os.fdopen(handle, "rb")


def _leads_out(path: Path, within: Path) -> bool:
    if os.path.dirname(path) == str(within) and not os.path.islink(path):
        return False  # as most files do, at a tenth of the cost
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(within))


def read_bytes(path: Path, *, within: Path | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """All of a regular file.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: If it cannot be read, or is longer.
    """
    with open_regular(path, within=within) as file:
        try:
            content = file.read(
                min(os.fstat(file.fileno()).st_size, max_bytes) + 1
            )  # asked for more, Python makes room
        except OSError as error:
            raise UnreadableFileError(path, error.strerror or str(error)) from error
    if len(content) > max_bytes:
        raise UnreadableFileError(path, f"it has more than {max_bytes:,} bytes")
    return content


def read_text(path: Path, *, within: Path | None = None, max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 text; raises as :func:`read_bytes` does."""
    try:
        return read_bytes(path, within=within, max_bytes=max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(path, f"it is not UTF-8 text, byte {error.start:,} is wrong") from error


def load_yaml(path: Path, kind: type = dict, *, within: Path | None = None) -> Any:
    """Load a YAML file as plain values: no tags, few levels, and aliases only as long as they stay small.

    Args:
        path: The file.
        kind: The type that it should hold: ``dict``, ``list``, or ``object`` for any.
        within: The folder that a link must not lead out of; None lets it lead anywhere.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: If it cannot be read or holds something else.
    """
    return parse_yaml(read_text(path, within=within), path, kind)


def parse_yaml(text: str, path: Path, kind: type = dict) -> Any:
    """The same of a text that was read from a file."""

    def parse() -> Any:
        _check_yaml(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader

    return _checked(path, kind, parse)


def load_json(path: Path, kind: type = dict, *, within: Path | None = None) -> Any:
    """Load a JSON file; a number that no float can hold, and NaN, is None; raises as :func:`load_yaml` does."""
    return parse_json(read_text(path, within=within), path, kind)


def parse_json(text: str, path: Path, kind: type = dict) -> Any:
    """The same of a text that was read from a file."""

    def parse() -> Any:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)

    return _checked(path, kind, parse)


def read_table(path: Path, *, within: Path | None = None, max_bytes: int = MAX_TABLE_BYTES) -> Iterator[list[str]]:
    """The rows of a CSV file, one by one; those before the damage come before the error.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: At the first row that cannot be read, or behind ``max_bytes``.
    """
    with open_regular(path, within=within) as file:

        def lines() -> Iterator[str]:
            num_read = 0
            while line := file.readline(_MAX_LINE + 1):
                num_read += len(line)
                if len(line) > _MAX_LINE:
                    raise UnreadableFileError(path, f"a line of it has more than {_MAX_LINE:,} bytes")
                if num_read > max_bytes:
                    raise UnreadableFileError(path, f"it has more than {max_bytes:,} bytes")
                yield line.decode("utf-8", errors="replace").replace("\0", "")

        try:
            for row in csv.reader(lines()):
                if len(row) > _MAX_COLUMNS:
                    raise UnreadableFileError(path, f"it has more than {_MAX_COLUMNS:,} columns")
                yield row
        except (csv.Error, OSError) as error:
            raise UnreadableFileError(path, str(error)) from error


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""A text that a terminal or a table can show: what would steer it, as ``\x1b`` does, is written out.

    Args:
        text: Any text, such as a name from a file of someone else.
        keep: Control characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _steers(char) else _written_out(char) for char in text)


def storable(text: str) -> str:
    r"""Escape the bytes of a file name that are not UTF-8, as in ``\xff``, so that a UTF-8 file can hold it."""
    if text.isascii():
        return text
    return "".join(_written_out(char) if unicodedata.category(char) == "Cs" else char for char in text)


def no_formula(cell: str) -> str:
    """A text that no spreadsheet takes for a formula, which could start programs."""
    cell = printable(cell, keep="")
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def _steers(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d\u00ad"


def _written_out(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # as which Python reads a byte of a file name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _checked(path: Path, kind: type, parse: Callable[[], Any]) -> Any:
    try:
        value = _plain(parse())
    except RecursionError as error:
        raise UnreadableFileError(path, f"it has more than {MAX_DEPTH} levels") from error
    except (ValueError, TypeError, OverflowError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"{getattr(error, 'problem', None) or str(error).partition(chr(10))[0]}"
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise UnreadableFileError(path, f"perhaps it is half written: {printable(reason[:200])}{place}") from error
    if not isinstance(value, kind):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise UnreadableFileError(path, f"it should hold a {kind.__name__}, but holds {found}")
    return value


def _check_yaml(text: str) -> None:
    """Refuse what would be large, deep or more than plain values, before any value is made.

    Raises:
        ValueError: If there is such a thing.
    """
    sizes: dict[str, int] = {}
    path: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_YAML):  # noqa: S506 - events alone
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ValueError(f"it has the tag {tag}, and a run's own files have none")
        if isinstance(event, yaml.CollectionStartEvent):
            path.append((event.anchor, _NODE))
            if len(path) > MAX_DEPTH + 1:
                raise RecursionError
            continue
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise ValueError(f"the alias {anchor!r} stands for nothing, or for what it lies in")
            size = sizes[str(anchor)]
        elif isinstance(event, yaml.ScalarEvent):
            size = _NODE + len(event.value)
            if event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
                raise ValueError(f"it has a number of {len(event.value):,} digits")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = path.pop()
        else:
            continue
        path[-1] = (path[-1][0], path[-1][1] + size)
        if path[-1][1] > _MAX_EXPANDED:
            raise ValueError(f"with its aliases replaced it has more than {_MAX_EXPANDED:,} characters")
        if anchor is not None:
            sizes[anchor] = size


def _plain(value: Any, depth: int = 0) -> Any:
    """The same with halves of character pairs replaced, which no file takes.

    Raises:
        RecursionError: If it is too deep.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise RecursionError
        if isinstance(value, list):
            return [_plain(item, depth + 1) for item in value]
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    return value


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole(text: str) -> int | float | None:
    return int(text) if len(text) <= 20 else _finite(text)
