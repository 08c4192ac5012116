"""A leaderboard as Markdown, CSV and one HTML page, and inside of a Markdown file between two marks."""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from ssl_lab.files import replace_file
from ssl_lab.limited import no_formula, printable
from ssl_lab.outputs import check_output, marked
from ssl_lab.report.leaderboard import Board, Entry, Leaderboard
from ssl_lab.report.page import IS_PAGE, environment
from ssl_lab.report.vocabulary import duration

NAMES = ("leaderboard.md", "leaderboard.csv", "leaderboard.html")
_IS_OURS = {
    ".md": marked(b"\n|  | seeds | ", begin=b"### "),
    ".csv": marked(b"", begin=b"data,split,row,kind,metric,"),
    ".html": IS_PAGE,
}
_BLOCK = re.compile(
    r"(?P<begin><!-- leaderboard:(?P<options>[^\n]*?)-->(?P<line_end>\r?\n))(?P<body>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)
_BEGIN = re.compile(r"<!-- leaderboard:")


def as_markdown(found: Leaderboard, *, headings: bool = True) -> str:
    """Tables with the commands that make their rows again below them, each command once.

    Args:
        found: The tables.
        headings: Whether each table is headed by its data; what is in no table is then listed at the end.
    """
    parts = []
    previous = ""
    shown: set[str] = set()
    said: set[str] = set()
    for board in found.boards:
        lines = [f"### {_plain(board.title)}", ""] if headings and board.title != previous else []
        lines += [f"**{_plain(board.table.title)}**", ""] if headings else []
        previous = board.title
        heads = ["", "seeds", *board.table.columns, "time"]
        lines += [_row(heads), _row([":--", *["--:"] * (len(heads) - 1)])]
        for entry in board.entries:
            cells = [
                f"**{cell.text}** {cell.deviation}".rstrip() if cell.best else str(cell) for cell in entry.row.cells
            ]
            lines.append(_row([entry.row.name, _seeds(entry), *cells, duration(entry.wall_time_sec)]))
        lines += [
            "",
            _plain(f"{_upper(board.split)} split. {' '.join(board.notes)}" if not headings else " ".join(board.notes)),
        ]
        if poor := [(entry.row.name, entry.verdict) for entry in board.entries if entry.verdict not in ("", *said)]:
            lines += ["", *(f"- {_escaped(name)}: {_plain(verdict)}" for name, verdict in poor)]
        said |= {verdict for _, verdict in poor}
        commands: dict[str, list[str]] = {}
        for entry in board.entries:
            if entry.command not in ("", *shown):
                commands.setdefault(entry.command, []).append(entry.row.name)
        if commands:
            made = [f"- {_escaped(' and '.join(names))}: {_code(command)}" for command, names in commands.items()]
            lines += ["", *made]
        shown |= commands.keys()
        parts.append("\n".join(lines))
    if headings and found.left_out:
        parts.append(f"Left out: {_plain(', '.join(found.left_out))}.")
    return "\n\n".join(parts) + "\n"


def as_csv(found: Leaderboard) -> str:
    """One line for each row and metric, numbers as they were measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["data", "split", "row", "kind", "metric", "mean", "std", "num_seeds", "seeds", "wall_time_sec", "checkpoint",
         "hardware", "command", "verdict"]
    )  # fmt: skip
    for board in found.boards:
        for entry in board.entries:
            for name in [name for name in board.metrics if name in entry.means]:
                kind = "baseline" if entry.is_baseline else "run"
                seeds = " ".join(map(str, entry.seeds))
                wall = "" if entry.wall_time_sec is None else f"{entry.wall_time_sec:.1f}"
                std = entry.deviations.get(name, "")
                facts = [
                    board.data,
                    board.split,
                    entry.row.name,
                    kind,
                    name,
                    entry.means[name],
                    std,
                    entry.num_runs,
                    seeds,
                ]
                row = [*facts, wall, entry.checkpoint, entry.hardware, entry.command, entry.verdict]
                writer.writerow([no_formula(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()


def as_html(found: Leaderboard) -> str:
    """One page that loads nothing from elsewhere; a click on a column's head sorts by it."""
    groups: dict[str, list[Board]] = {}
    for board in found.boards:
        groups.setdefault(board.title, []).append(board)
    return (
        environment()
        .get_template("leaderboard.html")
        .render(groups=groups, left_out=found.left_out, seeds=_seeds, duration=duration, keys=_sort_keys, lower=_lower)
    )


def files_of(out: Path) -> list[Path]:
    """The files that are written: all three in a folder, or the one that the suffix of a file says.

    Raises:
        ValueError: If a file has another suffix, or one that is there is no leaderboard.
    """
    is_file = bool(out.suffix) and not out.is_dir()
    if is_file and out.suffix not in _IS_OURS:
        raise ValueError(
            f"Cannot write the leaderboard to {out}: its formats are {', '.join(_IS_OURS)}. Give --out a folder, "
            "or a file that ends so."
        )
    paths = [out] if is_file else [out / name for name in NAMES]
    check_output(out, folder=not is_file, setting="--out")
    for path in paths:
        check_output(path, setting="--out", ours=_IS_OURS[path.suffix])
    return paths


def write_leaderboard(found: Leaderboard, out: Path) -> list[Path]:
    """Write all three into a folder, or the one that the suffix of a file says; the paths.

    Raises:
        ValueError: If a file has another suffix, or one that is there is no leaderboard.
    """
    writers = {".md": as_markdown, ".csv": as_csv, ".html": as_html}
    paths = files_of(out)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, writers[path.suffix](found).encode(), through_link=True)
    return paths


def update_blocks(path: Path, make: Callable[[list[str]], Leaderboard]) -> tuple[int, list[str]]:
    """Replace what stands between ``<!-- leaderboard: OPTIONS -->`` and ``<!-- end -->`` in a Markdown file.

    Args:
        path: The file; it is replaced as a whole, or stays as it is.
        make: Makes the tables of the options in a mark; a ``ValueError`` of it leaves the block as it is.

    Returns:
        How many blocks were made anew, and why others were not.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no block, or one without an end, or none could be made.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Cannot update {path}: there is no such file.")
    text = path.read_bytes().decode("utf-8")
    blocks = list(_BLOCK.finditer(text))
    num_begun = len(_BEGIN.findall(text))
    if not blocks or len(blocks) != num_begun:
        raise ValueError(
            f"Cannot update {path}: {'one of its blocks has no end' if num_begun else 'it has no block'}. Put a line "
            "<!-- leaderboard: --> where the table begins and a line <!-- end --> behind it; options such as --metric "
            "linear/top1 stand behind the colon."
        )
    kept: list[str] = []

    def fill(block: re.Match[str]) -> str:
        try:
            found = make(shlex.split(block["options"]))
        except ValueError as error:
            kept.append(f"{path}:{text.count(chr(10), 0, block.start()) + 1} stays as it is: {error}")
            return block[0]
        several = len({board.title for board in found.boards}) > 1 or len(found.boards) > 1
        body = f"\n{as_markdown(found, headings=several)}\n"  # some readers want the lines
        return f"{block['begin']}{body.replace(chr(10), block['line_end'])}{block['end']}"

    new = _BLOCK.sub(fill, text)
    if len(kept) == len(blocks):
        raise ValueError(" ".join(kept))
    if new != text:
        replace_file(path, new.encode(), through_link=True)
    return len(blocks) - len(kept), kept


def _seeds(entry: Entry) -> str:
    return "–" if entry.is_baseline and entry.num_runs == 1 else str(entry.num_runs)


def _sort_keys(board: Board, entry: Entry) -> list[str]:
    """Return the sort keys of the cells of a row: the values as measured, empty where missing or not finite."""
    return [repr(x) if math.isfinite(x := entry.means.get(name, math.nan)) else "" for name in board.metrics]


def _lower(board: Board) -> list[bool]:
    """Of each column, whether lower values are better."""
    return [metric.better == "lower" for metric in board.metrics.values()]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(cell: str) -> str:
    return _plain(cell).replace("|", "\\|")


def _plain(text: str) -> str:
    """A text from a run in one line that cannot end a tag or one of our markers."""
    return printable(text, keep="").replace("<", "&lt;")


def _code(text: str) -> str:
    """A text as code; longer fences where it holds backticks."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{printable(text, keep='').replace('<!--', '<! --')}{space}{fence}"


def _upper(word: str) -> str:
    return word[:1].upper() + word[1:]
