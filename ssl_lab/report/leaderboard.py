"""Results of many runs as tables: runs that differ in their seed alone are one row, data sets never share a table."""

from __future__ import annotations

import difflib
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_lab.measured import base_name, of_input
from ssl_lab.metrics import OTHER, Metric, Table, described, joined
from ssl_lab.report.row_labels import row_labels
from ssl_lab.report.tables import ResultsTable, Row, tables
from ssl_lab.report.vocabulary import describe
from ssl_lab.runs.files import shell_line
from ssl_lab.runs.find import read_runs
from ssl_lab.runs.results import Result, judged_runs, same_but_for_seed, settings_of, side_by_side, verdict_of
from ssl_lab.runs.ways import LOADING


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Identity of a row of a table.

    Attributes:
        row: Its name and cells.
        seeds: The seeds it is a mean over; empty where the run has none.
        num_runs: Number of runs or, of a baseline, of different measurements it is a mean over.
        means: Mean of each shown metric.
        deviations: Sample standard deviation of each, where there are two values or more.
        wall_time_sec: Mean duration of one run, evaluation included; None for a baseline.
        checkpoint: ``last`` or ``best``; empty for a baseline.
        hardware: What the runs ran on.
        command: What does all of them again; empty for a baseline, or if it is not known.
        verdict: What is poor about them, as a line, of several seeds that of the first with the number of seeds that have
            one; empty where all is well.
    """

    row: Row
    seeds: Sequence[int] = ()
    num_runs: int = 1
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    wall_time_sec: float | None = None
    checkpoint: str = ""
    hardware: str = ""
    command: str = ""
    verdict: str = ""

    @property
    def is_baseline(self) -> bool:
        """Return whether it is a baseline and no run's own result."""
        return self.row.reference


@dataclass(frozen=True, kw_only=True)
class Board:
    """One table: one data set, one split, one kind of metric, measured in one way.

    Attributes:
        data: Title of the data, with what tells it from other data of the same title.
        split: The split that was judged.
        table: Title, explanation and columns.
        metrics: The columns' metrics by name.
        entries: Runs, the best by the first metric first, and then baselines.
        notes: What must be known to read it rightly.
    """

    data: str
    split: str
    table: ResultsTable
    metrics: Mapping[str, Metric]
    entries: Sequence[Entry]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """Data and split."""
        return f"{self.data}, {self.split} split"


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All tables, and the runs that are in none of them."""

    boards: Sequence[Board]
    left_out: Sequence[str]


def leaderboard(
    folders: Sequence[Path], *, metrics: Sequence[str] = (), protocols: Sequence[str] = (), data: Sequence[str] = ()
) -> Leaderboard:
    """Read all runs below some folders and put their results into tables.

    Args:
        folders: Where to look.
        metrics: Show these metrics alone, such as ``linear/top1``; the first one sorts. Empty for all but macro F1 and
            recall.
        protocols: Show the metrics of these protocols alone, such as ``knn``. Empty for all.
        data: Show data sets alone whose title holds one of these. Empty for all.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If nothing is left to show; says what there is.
    """
    closed: list[str] = []
    results, left_out = judged_runs(read_runs(folders, closed))
    if closed:
        left_out.append(f"{len(closed):,} folder{'s' * (len(closed) > 1)} that cannot be opened ({closed[0]})")
    if not results:
        suffix = f": {', '.join(left_out)}" if left_out else ""
        raise ValueError(
            f"Cannot make a leaderboard: below {', '.join(map(str, folders))} no run has finished with an evaluation"
            f"{suffix}. Give a folder that holds finished runs."
        )
    titles = {str(result.facts.data) for result in results}
    wanted = [r for r in results if not data or any(word.lower() in str(r.facts.data).lower() for word in data)]
    if not wanted:
        raise ValueError(
            f"No run was judged on data called {' or '.join(data)}. Choose from: {', '.join(sorted(titles))}."
        )
    asked = [metric.removeprefix("test/").removeprefix("eval/") for metric in metrics]
    by_data = _by_key(
        wanted, lambda result: (str(result.facts.data), result.split, *settings_of(result, "data", LOADING))
    )
    groups = [side_by_side(group) for group in by_data]
    descriptions, told_apart = _descriptions(wanted)
    left_out += told_apart
    _check_known(asked, protocols, {name for group in groups for result in group for name in result.metrics})
    heads = [(str(group[0].facts.data), group[0].split, _distinction(group, results)) for group in groups]
    boards = [
        board
        for (*_, distinction), group in sorted(zip(heads, groups, strict=True), key=lambda pair: pair[0])
        for board in _boards(group, distinction, descriptions, asked, protocols)
    ]
    return Leaderboard(boards=boards, left_out=left_out)


def _descriptions(results: Sequence[Result]) -> tuple[dict[str, Any], list[str]]:
    """Join the runs' descriptions of metrics, where the newest run wins, with a sentence where they disagree."""
    parts = [
        record.get("described")
        for result in sorted(results, key=lambda result: result.facts.newest)
        for record in result.measured
    ]
    found = joined(parts)
    known = described(found)
    others = {name for part in parts for name, metric in described(part).items() if metric != known.get(name, metric)}
    notes = [f"other descriptions of {', '.join(sorted(others))} than the newest run's"] if others else []
    return found, notes


def _by_key(results: Sequence[Result], key: Any) -> list[list[Result]]:
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())


def _check_known(metrics: Sequence[str], protocols: Sequence[str], known: set[str]) -> None:
    known |= {base_name(name) for name in known}
    names = {name for name in known if not name.endswith("_std")}
    for asked, choices in ((metrics, names), (protocols, {part for name in names for part in _protocols(name)})):
        for name in asked:
            if name not in choices:
                close = difflib.get_close_matches(name, sorted(choices), n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(
                    f"Cannot show {name}: none of these runs has measured it.{hint} Choose from: "
                    f"{', '.join(sorted(choices))}."
                )


def _boards(
    group: Sequence[Result],
    distinction: str,
    descriptions: Mapping[str, Any],
    metrics: Sequence[str],
    protocols: Sequence[str],
) -> list[Board]:
    """The tables of one data set: one for each kind of metric."""
    known = described(descriptions)
    shown: dict[str, dict[str, Metric]] = {}
    kinds: dict[str, Table] = {}
    for name in dict.fromkeys(name for result in group for name in result.metrics):
        is_metric = _place_in(metrics, name) < len(metrics)
        asked = is_metric or _protocols(name) & set(protocols) or not (metrics or protocols)
        metric = describe(name, known)
        if asked and (metric.table or is_metric) and not name.endswith("_std") and not metric.reference:
            table = kinds.setdefault((metric.table or OTHER).key, metric.table or OTHER)
            shown.setdefault(table.key, {})[name] = metric
    boards = []
    for table in sorted(kinds.values(), key=lambda table: table.order):
        if table.secondary and not metrics:
            continue
        columns = shown[table.key]
        names = sorted(columns, key=lambda name: columns[name].order)
        if metrics:
            names.sort(key=lambda name: _place_in(metrics, name))
        having = [result for result in group if result.metrics.keys() & set(names)]
        if having:
            columns = {name: columns[name] for name in names}
            boards.append(_board(having, table.key, columns, descriptions, distinction))
    return boards


def _protocols(name: str) -> set[str]:
    """Return the possible prefixes of a metric's name: its protocol, with the protocol's own data before it."""
    return set(base_name(name).split("/")[:-1])


def _place_in(metrics: Sequence[str], name: str) -> int:
    """Where a metric stands among the chosen ones, by its name or its plain name; behind all if it does not."""
    places = [k for k, metric in enumerate(metrics) if metric in (name, base_name(name))]
    return places[0] if places else len(metrics)


def _distinction(group: Sequence[Result], everything: Sequence[Result]) -> str:
    """Return the settings of the data that distinguish a table from others with the same title."""
    namesakes = [r for r in everything if (r.facts.data, r.split) == (group[0].facts.data, group[0].split)]
    differing = [dict(settings_of(result, "data", LOADING)) for result in namesakes]
    own = dict(settings_of(group[0], "data", LOADING))
    parts = [
        f"{key.partition('.')[2]}={own[key]}"
        for key in own
        if any(key in other and other[key] != own[key] for other in differing)
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _board(
    results: Sequence[Result],
    key: str,
    columns: Mapping[str, Metric],
    descriptions: Mapping[str, Any],
    distinction: str,
) -> Board:
    names = [name for name in columns if any(name in result.metrics for result in results)]
    by = columns[names[0]]
    rows = _by_key(results, same_but_for_seed)
    rows.sort(key=lambda row: _place(by, names[0], row))
    labels = row_labels(rows)
    known = described(descriptions)
    every = {name: describe(name, known) for result in results for name in result.metrics}
    references = [n for n, metric in every.items() if metric.reference and metric.table and metric.table.key == key]
    references = [name for name in references if not name.endswith("_real") or name.removesuffix("_real") in names]
    averaged = {
        label: _average([result.metrics for result in row], [*names, *references], references)
        for label, row in zip(labels, rows, strict=True)
    }
    baselines = _baselines(results, names)
    evaluation = {
        "described": descriptions,
        "rows": [
            {"name": label, "metrics": means | {f"{name}_std": value for name, value in deviations.items()}}
            for label, (means, deviations) in [*averaged.items(), *((n, b[:2]) for n, b in baselines.items())]
        ],
    }
    (table,) = [table for table in tables(evaluation) if table.key == key]
    entries = []
    for row in table.rows:
        if row.name in averaged and not row.reference:
            entries.append(_entry(row, rows[labels.index(row.name)], *averaged[row.name]))
        else:
            means, deviations, num = baselines.get(row.name, ({}, {}, 1))
            reference = Row(name=row.name, cells=row.cells, reference=True)
            entries.append(Entry(row=reference, means=means, deviations=deviations, num_runs=num))
    return Board(
        data=f"{results[0].facts.data}{distinction}",
        split=results[0].split,
        table=replace(table, explanation=re.sub(r" \(mean ± [^)]*\)", "", table.explanation)),  # the notes say of what
        metrics={name: columns[name] for name in names},
        entries=entries,
        notes=_notes(entries, names),
    )


def _place(by: Metric, name: str, row: Sequence[Result]) -> tuple[bool, float]:
    values = [result.metrics[name] for result in row if name in result.metrics]
    if not values or not all(map(math.isfinite, values)):
        return True, 0.0
    mean = statistics.fmean(values)
    return False, mean if by.better == "lower" else -mean


def _average(
    measured: Sequence[Mapping[str, float]], names: Sequence[str], references: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation of each metric that all have; of references the mean alone."""
    means, deviations = {}, {}
    for name in names:
        values = [metrics[name] for metrics in measured if name in metrics]
        if values and len(values) == len(measured):
            means[name] = statistics.fmean(values)
            if len(values) > 1 and name not in references and all(map(math.isfinite, values)):
                deviations[name] = statistics.stdev(values)
    return means, deviations


def _baselines(
    results: Sequence[Result], names: Sequence[str]
) -> dict[str, tuple[dict[str, float], dict[str, float], int]]:
    """Rows that come with every run: once where runs agree, as a mean over what differs, apart for each encoder."""
    measured: dict[tuple[str, Any], list[dict[str, float]]] = {}
    encoders: dict[Any, str] = {}
    for result in results:
        same_for_all = of_input(result.measured)
        for name, metrics in result.baselines.items():
            shown = {metric: metrics[metric] for metric in names if metric in metrics}
            encoder = () if name in same_for_all else settings_of(result, "encoder")
            encoders[encoder] = str(result.facts.encoder)
            known = measured.setdefault((name, encoder), [])
            same = [other for other in known if all(other[name] == shown[name] for name in other.keys() & shown.keys())]
            if shown and same:
                same[0].update(shown)
            elif shown:
                known.append(shown)
    found = {}
    for (name, encoder), values in measured.items():
        alike = [other for other, kind in measured if other == name and kind != encoder]
        label = f"{name} ({_encoder_label(encoder, encoders)})" if alike else name
        if values:
            means: dict[str, float] = {}
            deviations: dict[str, float] = {}
            for metric in names:  # encoders may have been measured in different ways
                one, its_deviation = _average([row for row in values if metric in row], [metric])
                means |= one
                deviations |= its_deviation
            found[label] = (means, deviations, len(values))
    return found


def _encoder_label(encoder: Any, encoders: Mapping[Any, str]) -> str:
    same_class = [dict(other) for other in encoders if other and encoders[other] == encoders[encoder]]
    settings = dict(encoder)
    parts = [
        f"{key.partition('.')[2]}={value}"
        for key, value in settings.items()
        if any(other.get(key) != value for other in same_class)
    ]
    return " ".join([encoders[encoder], *parts])


def _entry(row: Row, results: Sequence[Result], means: Mapping[str, float], deviations: Mapping[str, float]) -> Entry:
    times = [result.facts.wall_time_sec for result in results if result.facts.wall_time_sec is not None]
    return Entry(
        row=row,
        seeds=sorted(result.facts.seed for result in results if result.facts.seed is not None),
        num_runs=len(results),
        means=means,
        deviations=deviations,
        wall_time_sec=statistics.fmean(times) if times else None,
        checkpoint=results[0].checkpoint,
        hardware=" or ".join(dict.fromkeys(result.hardware for result in results if result.hardware)),
        command=_command(results),
        verdict=verdict_of(results),
    )


def _command(results: Sequence[Result]) -> str:
    """One command for all runs of a row: a sweep over seeds where each run has its own command."""
    commands = sorted({tuple(result.command) for result in results if result.command})
    if len(commands) == 1 and (len(results) == 1 or commands[0][1] == "finetune"):
        return shell_line(commands[0])
    without = {tuple(word for word in command if not word.startswith("seed=")) for command in commands}
    seeds = sorted(result.facts.seed for result in results if result.facts.seed is not None)
    if len(without) == 1 and len(seeds) == len(results):
        name, command, *overrides = without.pop()
        return shell_line([name, command, "-m", *overrides, f"seed={','.join(map(str, seeds))}"])
    return "; ".join(map(shell_line, commands))


def _notes(entries: Sequence[Entry], names: Sequence[str]) -> list[str]:
    own = [entry for entry in entries if not entry.is_baseline]
    checkpoints = {entry.checkpoint for entry in own}
    notes = [
        "Scores of the last checkpoint."
        if checkpoints == {"last"}
        else "Scores of the checkpoint that was best on the validation split."
        if checkpoints == {"best"}
        else "Scores of the last checkpoint or, where the row says so, of the one that was best on the validation split."
    ]
    counts = sorted({entry.num_runs for entry in own})
    if counts[-1] > 1:
        notes.append("Mean ± standard deviation over seeds.")
    if len(counts) > 1:
        numbers = ", ".join(map(str, counts[:-1]))
        notes.append(f"Rows have different numbers of seeds ({numbers} and {counts[-1]}): one seed says little.")
    elif counts == [1]:
        notes.append("One seed each: differences may be chance.")
    if any(name.startswith("few_label/") for name in names):
        notes.append("With few labels, each run's score is the mean over draws of the labels.")
    hardware = list(dict.fromkeys(entry.hardware for entry in own if entry.hardware))
    if hardware:
        notes.append(f"Time is that of one run with its evaluations, on {'; '.join(hardware)}.")
    return notes
