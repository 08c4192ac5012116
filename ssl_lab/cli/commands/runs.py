"""``ssl-lab runs``: list and rank runs from their directories, without slow imports."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssl_lab.cli.arguments import Parser, count_argument, path_argument
from ssl_lab.limited import printable
from ssl_lab.metrics import described
from ssl_lab.report.vocabulary import describe, duration
from ssl_lab.runs.facts import STATUSES, RunFacts
from ssl_lab.runs.files import command_of, read_descriptions, shell_line
from ssl_lab.runs.find import rank, read_runs, what_varies
from ssl_lab.runs.ways import measurings_of, ways_of

_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "bold red",
    "stale": "bold yellow",
    "interrupted": "yellow",
    "preempted": "yellow",
}
_DASH = "–"
_WIDEST = 100_000  # columns of a table that no terminal shows
_MAX_ERROR = 120
_BY: dict[str, Callable[[RunFacts], float | str]] = {
    "time": lambda run: -run.newest,
    "name": lambda run: run.name.lower(),
    "status": lambda run: STATUSES.index(run.status),
    "value": lambda run: float("inf") if run.value is None else -run.value,
    "speed": lambda run: -(run.samples_per_sec or 0.0),
    "step": lambda run: -(run.step or 0),
    "wall": lambda run: -(run.wall_time_sec or 0.0),
}


def run(args: list[str]) -> int:
    """List runs, or with ``best METRIC`` rank them."""
    return _best(args[1:]) if args[:1] == ["best"] else _list(args)


def _list(args: list[str]) -> int:
    parser = Parser(
        prog="ssl-lab runs",
        description="List the runs below some folders. 'ssl-lab runs best METRIC [DIR ...]' ranks them.",
    )
    parser.add_argument("folders", nargs="*", type=path_argument, metavar="DIR", help="where to look (default: runs)")
    parser.add_argument("--status", action="append", choices=STATUSES, help="only runs of this status; may be repeated")
    parser.add_argument("--sort", choices=_BY, default="time", help="newest, highest or longest first (default: time)")
    parser.add_argument(
        "--limit", type=count_argument, default=None, metavar="N", help="at most N runs; 0 for all (default: 50)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array with all facts, for programs")
    parsed = parser.parse_intermixed_args(args)
    closed: list[str] = []
    everything = read_runs(parsed.folders or [Path("runs")], closed)
    wanted = [run for run in everything if not parsed.status or run.status in parsed.status]
    wanted.sort(key=_BY[parsed.sort])
    limit = parsed.limit if parsed.limit is not None else (0 if parsed.json else 50)
    shown = wanted[:limit] if limit > 0 else wanted
    if parsed.json:
        print(json.dumps([_as_json(run) for run in shown], indent=2))
        return 0
    if shown:
        _print(_table(shown, everything))
    counts = Counter(run.status for run in wanted)
    numbers = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status])
    print(f"{_runs(len(wanted))}: {numbers}." if numbers else f"{_runs(0)} here.")
    if len(shown) < len(wanted):
        print(f"{len(wanted) - len(shown):,} more are not shown. Show all with --limit 0.")
    _tell_of_problems(everything, closed)
    return 0


def _is_lower_better(metric: str, everything: Sequence[RunFacts]) -> bool:
    """As the newest run says that describes the metric."""
    name = re.sub("^(eval|test|train)/", "", metric)
    for run in sorted(everything, key=lambda run: -run.newest):
        if metric in run.metrics and (known := described(read_descriptions(run.path, []))):
            return describe(name, known).better == "lower"
    return describe(name, {}).better == "lower"


def _best(args: list[str]) -> int:
    parser = Parser(
        prog="ssl-lab runs best",
        description="Rank runs by a metric and print the command that repeats the best one.",
    )
    parser.add_argument("metric", nargs="?", help="such as test/linear/top1")
    parser.add_argument("folders", nargs="*", type=path_argument, metavar="DIR", help="where to look (default: runs)")
    parser.add_argument("--min", action="store_true", help="the lowest is the best (known for perplexities and such)")
    parser.add_argument(
        "--limit", type=count_argument, default=10, metavar="N", help="at most N runs; 0 for all (default: 10)"
    )
    parsed = parser.parse_intermixed_args(args)
    if not parsed.metric:
        raise ValueError("ssl-lab runs best ranks runs by a metric, found none. Name it, such as test/linear/top1.")
    closed: list[str] = []
    everything = read_runs(parsed.folders or [Path("runs")], closed)
    lowest = parsed.min or _is_lower_better(parsed.metric, everything)
    ranked = rank(everything, parsed.metric, lowest=lowest)
    groups: dict[str, list[tuple[RunFacts, float]]] = {}
    ways = ways_of(measurings_of([run for run, _ in ranked]), parsed.metric)
    for item, way in zip(ranked, ways, strict=True):
        groups.setdefault(way, []).append(item)
    for way, members in groups.items():
        _print_ranking(parsed.metric, way, members[: parsed.limit] if parsed.limit > 0 else members)
    num_without = len(everything) - len(ranked)
    without = f"; {num_without:,} {'other has' if num_without == 1 else 'others have'} not measured it" * bool(
        num_without
    )
    print(f"{_runs(len(ranked))}, {'lowest' if lowest else 'highest'} first{without}.")
    _tell_of_problems(everything, closed)
    if len(groups) > 1:
        print(f"They were measured in {len(groups)} ways, which cannot be compared: each has a ranking of its own.")
    for way, members in groups.items():
        best = members[0][0]
        command = command_of(best.path, [])
        which = f"The best one with {way}" if way else "The best one"
        if command:
            print(printable(f"{which} again: {shell_line(command)}"))
        else:
            print(
                printable(
                    f"What was asked of {which[:1].lower()}{which[1:]} is not known: {best.path / 'overrides.yaml'} "
                    "cannot be read."
                )
            )
    return 0


def _print_ranking(metric: str, way: str, ranked: Sequence[tuple[RunFacts, float]]) -> None:
    if way:
        print(printable(f"{metric}, {way}"))
    table = _empty_table()
    for head in ("", metric, "step", "seed"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("run", overflow="fold")
    table.add_column("directory", overflow="fold")
    for place, (run, value) in enumerate(ranked, 1):
        cells = [str(place), f"{value:.4g}", _count(run.step), _plain(run.seed)]
        table.add_row(*cells, _status(run.status), _named(run.name), _named(str(run.path)))
    _print(table)


def _table(shown: Sequence[RunFacts], everything: Sequence[RunFacts]) -> Table:
    """Runs in order, those of a sweep together where its first one stands."""
    table = _empty_table()
    table.add_column("status", no_wrap=True)
    table.add_column("run", overflow="fold", min_width=16)
    has_sweeps = any(run.sweep for run in shown)
    if has_sweeps:
        table.add_column("varies", overflow="fold", min_width=12)
    for head in ("seed", "step", "epoch", "samples/s"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("objective", overflow="fold", min_width=12)
    table.add_column("started", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("directory", overflow="fold", min_width=20)
    blocks: dict[Path, list[RunFacts]] = {}
    for run in shown:
        blocks.setdefault(run.sweep or run.path, []).append(run)
    previous_was_sweep = False
    for folder, trials in blocks.items():
        is_sweep = trials[0].sweep is not None
        if table.row_count and (is_sweep or previous_was_sweep):
            table.add_section()
        varies: dict[Path, str] = {}
        if is_sweep:
            sweep = [run for run in everything if run.sweep == folder]
            varies = dict(zip((run.path for run in sweep), what_varies(sweep), strict=True))
            table.add_row(*_sweep_row(folder, sweep))
        for run in trials:
            cells = _run_row(run)
            table.add_row(*cells[:2], *([_named(varies.get(run.path, ""))] if has_sweeps else []), *cells[2:])
        previous_was_sweep = is_sweep
    return table


def _sweep_row(folder: Path, trials: Sequence[RunFacts]) -> list[Text]:
    counts = Counter(run.status for run in trials)
    numbers = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    head = Text(f"{len(trials)} trials: {numbers}", style="bold")
    return [Text("sweep", style="bold"), head, *[Text()] * 8, _named(str(folder), "bold")]


def _run_row(run: RunFacts) -> list[Text]:
    place = _named(f"  {run.path.name}" if run.sweep else str(run.path))
    if run.error and run.status != "finished":
        first_line = printable(run.error.splitlines()[0], keep="")
        place.append("\n" + (first_line if len(first_line) <= _MAX_ERROR else first_line[:_MAX_ERROR] + "…"), "dim")
    objective = Text(_DASH)
    if run.objective and run.value is not None:
        objective = Text(f"{run.value:.4g}").append(" ").append(_named(run.objective, "dim"))
    return [
        _status(run.status),
        _named(("  " if run.sweep else "") + run.name),
        Text(_plain(run.seed)),
        Text(_count(run.step)),
        Text(_count(run.epoch)),
        Text(_count(run.samples_per_sec)),
        objective,
        Text(_ago(run.started)),
        Text(duration(run.wall_time_sec)),
        place,
    ]


def _tell_of_problems(everything: Sequence[RunFacts], closed: Sequence[str]) -> None:
    damaged = [run for run in everything if run.problems]
    if damaged:
        verb = "has" if len(damaged) == 1 else "have"
        example = f"{damaged[0].path}: {damaged[0].problems[0]}"
        print(printable(f"{_runs(len(damaged))} {verb} files that could not be read, such as {example}", keep=""))
    if closed:
        text = f"{len(closed):,} folder{'s' * (len(closed) > 1)} cannot be opened, such as {closed[0]}."
        print(printable(text, keep=""))


def _as_json(run: RunFacts) -> dict[str, Any]:
    facts = dataclasses.asdict(run)
    facts |= {"path": str(run.path), "sweep": str(run.sweep) if run.sweep else None, "name": run.name}
    for moment in ("started", "last_sign"):
        seconds = facts[moment]
        facts[moment] = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
    return facts


def _empty_table() -> Table:
    return Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="")


def _print(table: Table) -> None:
    """Fit the table into a terminal, or into COLUMNS; elsewhere, each row is one line."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        Console(highlight=False).print(table)
        return
    for column in table.columns:
        column.no_wrap = True
    console = Console(width=_WIDEST, highlight=False)
    console.width = console.measure(table).maximum
    console.print(table)


def _status(status: str) -> Text:
    return Text(status, style=_STYLES.get(status, ""))


def _named(name: str, style: str = "") -> Text:
    """A name from a run, which may be someone else's: it does not steer the terminal."""
    return Text(printable(name, keep=""), style=style)


def _runs(num: int) -> str:
    return f"{num:,} run" if num == 1 else f"{num:,} runs"


def _plain(value: int | None) -> str:
    return _DASH if value is None else str(value)


def _count(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def _ago(started: float | None) -> str:
    """Format the time since the start, in one unit."""
    if started is None:
        return _DASH
    seconds = max(0.0, time.time() - started)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
