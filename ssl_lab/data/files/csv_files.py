"""Rows of csv files from their lines, and places where a reader would silently make other rows."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ssl_lab.data.files.layout import shown
from ssl_lab.data.store import remembered, status_of

_UNLIKE_A_TABLE = {"names", "column_names", "header", "skiprows", "skipfooter", "comment", "lineterminator", "nrows"}
"""Options with which the first line does not say how many fields a row has."""
_NUM_JUDGED = 1000
_NUM_SAMPLED = 20_000
_MOST_VALUES = 1000
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


def first_line(file: Path) -> str:
    """The first line of a file, gzipped or not; empty if it is not UTF-8."""
    with _opened(file, "utf-8-sig") as lines:
        try:
            return lines.readline(1 << 20).rstrip("\r\n")
        except UnicodeDecodeError:
            return ""  # whoever reads the whole file says so


def check_lines(files: Sequence[Path], options: Mapping[str, Any], *, title: str, trusted: bool = False) -> str:
    """Look how lines make rows, and refuse stray quotes that would join several rows into one.

    A field in quotes may hold line breaks. If its lines look like whole rows, two stray quotes are likelier: each line has as
    many fields as the header, and cells of columns with few values or numbers hold such values.

    Args:
        files: csv files.
        options: Arguments of the reader, as ``datasets.load_dataset`` takes them.
        title: What messages call the data.
        trusted: No quote is stray, as the user says.

    Returns:
        How many rows span several lines, and which the most, for people; empty if there are none.

    Raises:
        ValueError: Naming file and line, if a quote is stray, or the header or a name of it occurs twice.
    """
    if _UNLIKE_A_TABLE & set(options) or len(_separator(options)) != 1:
        return ""
    facts, num_bytes = status_of(files)
    facts += [trusted, sorted(map(str, options.items()))]
    look = partial(_look_through, files, options, trusted=trusted)
    found = _Found(**remembered("csv-rows-1", facts, lambda: asdict(look()), num_bytes=num_bytes))
    if found.num_short:
        warnings.warn(
            f"{found.num_short} rows of {title} have fewer fields than the header (first: {found.first_short}); what they "
            "lack is blank. Put texts that hold line breaks in double quotes.",
            stacklevel=3,
        )
    if not found.num_joined:
        return ""
    return f"{found.num_joined:,} of {found.num_rows:,} rows span several lines (most: {found.longest})"


@dataclass
class _Found:
    """Rows of all files; those that span several lines, and those with fewer fields than the header."""

    num_rows: int = 0
    num_joined: int = 0
    longest: str = ""
    num_short: int = 0
    first_short: str = ""


@dataclass
class _Table:
    """Facts on a file's columns from one-line rows, and the rows of several lines that need a decision."""

    names: list[str]
    values: list[set[str]] = field(default_factory=list)
    num_sampled: int = 0
    joined: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, row: Sequence[str]) -> None:
        if self.num_sampled < _NUM_SAMPLED and len(row) == len(self.names):
            self.num_sampled += 1
            for known, cell in zip(self.values, row, strict=True):
                if len(known) <= _MOST_VALUES:
                    known.add(cell.strip())

    def plausible(self) -> list[tuple[int, re.Pattern[str] | set[str]]]:
        """Columns that tell their own cells: by a form, or by few values."""
        found: list[tuple[int, re.Pattern[str] | set[str]]] = []
        for column, known in enumerate(self.values):
            if known and all(map(_NUMBER.fullmatch, known)):
                found.append((column, _NUMBER))
            elif known and len(known) <= min(_MOST_VALUES, self.num_sampled / 2):
                found.append((column, known))
        return found


def _look_through(files: Sequence[Path], options: Mapping[str, Any], *, trusted: bool) -> _Found:
    found, longest = _Found(), 1
    before = csv.field_size_limit(sys.maxsize)
    try:
        for file in files:
            with _opened(file, options.get("encoding") or "utf-8-sig") as lines:
                table, longest = _look_at(file, lines, options, found, longest)
            if not trusted:
                _refuse_stray_quotes(file, table, options)
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile, LookupError, TypeError):
        return found  # of a damaged file or an option that is none, whoever reads the whole file says so
    finally:
        csv.field_size_limit(before)
    return found


def _look_at(file: Path, lines: TextIO, options: Mapping[str, Any], found: _Found, longest: int) -> tuple[_Table, int]:
    held: list[str] = []

    def reading() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(reading(), **_dialect(options))
    header = next(reader, [])
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"Cannot read {shown(str(file))}: its header names {twice!r} twice. Give each column one name."
        )
    held.clear()
    table = _Table(header, [set() for _ in header])
    for row in reader:
        number = reader.line_num - len(held) + 1
        if row:
            found.num_rows += 1
            if row == header and len(row) > 1:
                raise ValueError(
                    f"Cannot read {shown(str(file))}: line {number:,} repeats the header, as in files that were joined. "
                    "Remove the line."
                )
            if len(row) < len(header):
                found.num_short += 1
                found.first_short = found.first_short or f"line {number:,} of {shown(file.name)}"
            if len(held) == 1:
                table.add(row)
            else:
                found.num_joined += 1
                if len(table.joined) < _NUM_JUDGED:
                    table.joined.append((number, held.copy()))
                if len(held) > longest:
                    longest = len(held)
                    found.longest = f"lines {number:,} to {reader.line_num:,} of {shown(file.name)}"
        held.clear()
    return table, longest


def _refuse_stray_quotes(file: Path, table: _Table, options: Mapping[str, Any]) -> None:
    plausible = table.plausible()
    dialect = _dialect(options)
    for number, lines in table.joined:
        rows = [line.replace(dialect["quotechar"], "").rstrip("\r\n").split(dialect["delimiter"]) for line in lines]
        like_rows = len(table.names) > 1 and all(len(row) == len(table.names) for row in rows)
        like_rows = like_rows and (
            all(_is_known(row[column].strip(), known) for row in rows for column, known in plausible)
            if plausible
            else len(rows) > 2
        )
        if like_rows or not _is_well_quoted(lines, dialect):
            first = lines[0].rstrip("\r\n")
            raise ValueError(
                f"Cannot read {shown(str(file))}: a quote in line {number:,} ({first[:60]!r}) joins {len(lines):,} lines "
                f"into one row{', though each looks like a row' if like_rows else ''}. Correct it (within quotes, a "
                "quote is written \"\"), or say what quotes mean: 'data.options={quoting: 3}' if they are plain characters, "
                "'data.options={quoting: 0}' if the row is right."
            )


def _is_known(cell: str, known: re.Pattern[str] | set[str]) -> bool:
    return cell in known if isinstance(known, set) else known.fullmatch(cell) is not None


def _is_well_quoted(lines: Sequence[str], dialect: Mapping[str, Any]) -> bool:
    """Return whether every closing quote stands at the end of its field, and there is at least one."""
    try:
        return len(list(itertools.islice(csv.reader(lines, strict=True, **dialect), 2))) == 1
    except csv.Error:
        return False


def _separator(options: Mapping[str, Any]) -> str:
    return str(options.get("delimiter") or options.get("sep") or ",")


def _dialect(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "delimiter": _separator(options),
        "quotechar": options.get("quotechar", '"'),
        "quoting": options.get("quoting", csv.QUOTE_MINIMAL),
        "doublequote": options.get("doublequote", True),
        "escapechar": options.get("escapechar"),
        "skipinitialspace": options.get("skipinitialspace", False),
    }


def _opened(file: Path, encoding: str) -> TextIO:
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding=encoding, newline="")
    return file.open(encoding=encoding, newline="")
