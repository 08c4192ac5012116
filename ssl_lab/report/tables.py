"""Results as tables: one function turns ``evaluation.json`` into heads and cells, for HTML, terminal and Markdown."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rich.box
import rich.table
from rich.text import Text

from ssl_lab.limited import printable
from ssl_lab.measured import described_in
from ssl_lab.metrics import Metric, Table, described, joined
from ssl_lab.report.vocabulary import describe

MAX_NAME = 32
"""Characters of a row's name in one line of the terminal; a longer one would push columns out."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table.

    Attributes:
        text: The value as shown.
        deviation: ``± deviation`` as shown, or empty.
        best: Whether no competing row of the column shows a better number.
        share: The value in [0, 1] if the metric is a share, for the bar beneath it.
    """

    text: str
    deviation: str = ""
    best: bool = False
    share: float | None = None

    def __str__(self) -> str:
        """Value and deviation as shown."""
        return f"{self.text} {self.deviation}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A named row; ``reference`` marks a yardstick rather than a run's own result."""

    name: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """One table of results.

    Attributes:
        key: That of its :class:`~ssl_lab.metrics.Table`.
        title: What is measured, with its unit if all columns share it.
        explanation: For a reader who has not met these metrics: the table's, then those of its columns.
        columns: Heads of the columns, each ending with the arrow that says which direction is better.
        rows: Rows in the order of ``evaluation.json``, yardsticks after them.
        secondary: Whether reports alone show it.
    """

    key: str
    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    secondary: bool = False


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str
    values: Mapping[str, float]  # by column
    deviations: Mapping[str, float]
    competes: bool = True
    reference: bool = False


def tables(evaluation: Mapping[str, Any]) -> list[ResultsTable]:
    """All results tables of an evaluation, the ones that matter most first.

    Args:
        evaluation: Contents of ``evaluation.json``: ``{"split": ..., "rows": [{"name": ..., "metrics": {...}}]}``.
            ``<metric>_std`` is shown as the deviation of ``<metric>``. Its records or itself may say what metrics mean.

    Returns:
        One table for each kind of metric that occurs; a row appears in the tables for which it has metrics.
    """
    known = described(joined(described_in(evaluation)))
    found: dict[str, Table] = {}
    by_table: dict[str, dict[str, Metric]] = {}
    for row in evaluation["rows"]:
        for name in row["metrics"]:
            metric = describe(name, known)
            is_deviation = name.endswith("_std") and name.removesuffix("_std") in row["metrics"]
            if metric.table is not None and not is_deviation:
                found.setdefault(metric.table.key, metric.table)
                by_table.setdefault(metric.table.key, {})[name] = metric
    return [
        _table(table, _told_apart(by_table[table.key]), evaluation["rows"])
        for table in sorted(found.values(), key=lambda table: table.order)
    ]


def _told_apart(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Metrics of one table; where several would share a column, its head says the name of each."""
    counts = Counter((metric.column, metric.reference) for metric in metrics.values())
    return {
        name: replace(metric, column=f"{metric.column} ({name})")
        if counts[metric.column, metric.reference] > 1
        else metric
        for name, metric in metrics.items()
    }


@dataclass(frozen=True, kw_only=True)
class ClassShares:
    """Shares of classes among a generator's samples, as predicted by a classifier.

    Attributes:
        name: Name of the row.
        shares: Share of each class in [0, 1], in the order of classes.
        accuracy: Accuracy in % of the classifier on real images, as shown; a dash if unknown.
    """

    name: str
    shares: Mapping[str, float]
    accuracy: str


def class_shares(evaluation: Mapping[str, Any]) -> list[ClassShares]:
    """Share of each class among generated samples, for each row that has them."""
    accuracy = describe("samples/judge_top1", {})
    found = []
    for row in evaluation["rows"]:
        shares = {
            name.removeprefix("samples/class_share_"): value
            for name, value in row["metrics"].items()
            if name.startswith("samples/class_share_") and value is not None
        }
        if shares:
            found.append(
                ClassShares(
                    name=row["name"],
                    shares=dict(sorted(shares.items(), key=lambda item: (len(item[0]), item[0]))),
                    accuracy=accuracy.show(
                        row["metrics"].get("samples/judge_top1", row["metrics"].get("samples/classifier_top1"))
                    ),
                )
            )
    return found


def results_table(evaluation: Mapping[str, Any]) -> rich.table.Table:
    """The results for the terminal: the tables below each other, best numbers bold.

    Example:
        >>> rich.print(results_table(json.loads(Path("runs/x/evaluation.json").read_text())))  # doctest: +SKIP
    """
    grid = rich.table.Table(box=None, show_header=False, padding=(0, 0, 1, 0))  # an empty line after each table
    for table in _main(evaluation):
        drawn = rich.table.Table(
            title=Text(printable(table.title, keep=""), style="not italic bold"),
            title_justify="left",
            header_style="",
            box=rich.box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        drawn.add_column("", no_wrap=True)
        for column in table.columns:
            longest_word = max(map(len, column.split()), default=0)
            drawn.add_column(Text(printable(column, keep="")), justify="right", min_width=longest_word)
        for row in table.rows:
            cells = [Text(str(cell), style="bold" if cell.best else "") for cell in row.cells]
            name = "\n".join(textwrap.wrap(printable(row.name, keep=""), MAX_NAME))
            drawn.add_row(Text(name, style="dim" if row.reference else ""), *cells)
        grid.add_row(drawn)
    return grid


def markdown_table(evaluation: Mapping[str, Any]) -> str:
    """The results as Markdown tables, best numbers bold; each table is headed by its title in bold."""
    blocks = []
    for table in _main(evaluation):
        lines = [
            f"**{printable(table.title, keep='').replace('<', '&lt;')}**",
            "",
            _markdown_row(["", *table.columns]),
            _markdown_row([":--", *("--:" for _ in table.columns)]),
        ]
        for row in table.rows:
            cells = [f"**{cell.text}** {cell.deviation}".rstrip() if cell.best else str(cell) for cell in row.cells]
            lines.append(_markdown_row([row.name, *cells]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _main(evaluation: Mapping[str, Any]) -> list[ResultsTable]:
    """The tables that fit a terminal or a README; the secondary scores are in the report."""
    return [table for table in tables(evaluation) if not table.secondary]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(printable(cell, keep="").replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _table(table: Table, metrics: Mapping[str, Metric], rows: Sequence[Mapping[str, Any]]) -> ResultsTable:
    columns = {metric.column: metric for metric in sorted(metrics.values(), key=lambda metric: metric.order)}
    own: list[_Entry] = []
    references: list[_Entry] = []
    for row in rows:
        for reference in dict.fromkeys(metric.reference for metric in metrics.values()):
            names = {m.column: name for name, m in metrics.items() if m.reference == reference}
            values = {c: row["metrics"][n] for c, n in names.items() if row["metrics"].get(n) is not None}
            deviations = {c: row["metrics"].get(f"{n}_std") for c, n in names.items()}
            competes = all(metrics[name].competes for name in names.values())
            entry = _Entry(
                name=reference or row["name"],
                values=values,
                deviations={column: value for column, value in deviations.items() if value is not None},
                competes=competes,
                reference=bool(reference),
            )
            if values and entry not in references:  # the same yardstick comes with every row that was scored
                (references if reference else own).append(entry)
    entries = own + references
    best = {column: _best(metric, column, entries) for column, metric in columns.items()}
    said = [table.explanation, *(metric.explanation for metric in columns.values())]
    return ResultsTable(
        key=table.key,
        title=table.title,
        explanation=" ".join(dict.fromkeys(filter(None, said))),
        secondary=table.secondary,
        columns=tuple(f"{column} {metric.arrow}".rstrip() for column, metric in columns.items()),
        rows=tuple(
            Row(
                name=entry.name,
                cells=tuple(_cell(metric, column, entry, best[column]) for column, metric in columns.items()),
                reference=entry.reference,
            )
            for entry in entries
        ),
    )


def _best(metric: Metric, column: str, entries: Sequence[_Entry]) -> str | None:
    """The best number as shown, so that equal-looking rows are marked equally; None without competition."""
    values = [entry.values[column] for entry in entries if entry.competes and column in entry.values]
    finite = [value for value in values if math.isfinite(value)]
    if not metric.better or len(values) < 2 or not finite:
        return None
    return metric.show(max(finite) if metric.better == "higher" else min(finite))


def _cell(metric: Metric, column: str, entry: _Entry, best: str | None) -> Cell:
    value = entry.values.get(column)
    text = metric.show(value)
    deviation = entry.deviations.get(column)
    return Cell(
        text=text,
        deviation="" if deviation is None else f"± {metric.show(deviation)}",
        best=entry.competes and text == best,
        share=value if metric.percent and value is not None and math.isfinite(value) else None,
    )
