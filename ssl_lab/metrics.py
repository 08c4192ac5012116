"""Meaning of metrics for a reader: declared where computed, kept with the results, read where shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

Better: TypeAlias = Literal["higher", "lower", ""]

LATER = 100
"""Order of tables and metrics that say none: behind those of the package."""
_MAX_TEXT, _MAX_NAME = 1000, 300  # characters of an explanation, of anything else
_MAX_METRICS = 10_000  # of one file; a VAE has one for each latent dimension
_MAX_ORDER = 8
_FORMAT = re.compile(r",?(\.\d)?[efg]")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        key: What tells it from others; metrics of one key share a table.
        title: Its heading, with the unit if all columns share it.
        explanation: For a reader who has not met these metrics.
        order: Where it stands among the tables.
        secondary: Whether reports alone show it, and neither terminal nor leaderboard.
    """

    key: str
    title: str
    explanation: str = ""
    order: int = LATER
    secondary: bool = False


OTHER = Table(key="other", title="Other metrics", order=10 * LATER)
"""The table of metrics that name none."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Display of one metric.

    In a protocol's declarations ``{0}`` and ``{1}`` in ``column``, ``line`` and ``panel`` stand for what the wildcards of the
    name match; see :func:`declared`.

    Attributes:
        column: Head of its column.
        table: The results table it belongs to; None if it is drawn elsewhere.
        panel: Title of the learning-curve panel it is drawn in; the column's head if not given.
        line: Its name in that panel's legend.
        reference: For a yardstick that comes with every row, the name of the row that holds it; else empty.
        better: Which direction is better; empty if neither is.
        percent: Whether values are shares in [0, 1] that are shown in percent.
        competes: Whether it may be the best of its column; False for a bound that no method is expected to pass.
        format: Format specification of a shown value, such as ``.3f``, ``.4g`` or ``,.0f``.
        order: Where its column stands in the table.
        explanation: Added to the table's own where the column is shown.
    """

    column: str
    table: Table | None = OTHER
    panel: str = ""
    line: str = "model"
    reference: str = ""
    better: Better = ""
    percent: bool = False
    competes: bool = True
    format: str = ".1f"
    order: tuple[int, ...] = (LATER,)
    explanation: str = ""

    @property
    def arrow(self) -> str:
        """``↑`` if higher is better, ``↓`` if lower is, else empty."""
        return {"higher": "↑", "lower": "↓", "": ""}[self.better]

    def show(self, value: float | None) -> str:
        """A value as text, in percent where the metric is a share; a dash if there is none."""
        if value is None:
            return "–"
        if not math.isfinite(value):
            return "not finite"
        return format(100 * value if self.percent else value, self.format)


def declared(declarations: Mapping[str, Metric], name: str) -> Metric | None:
    """The metric of a name among declarations, the first that fits; None if none does.

    Args:
        declarations: Metrics by name, in the order of their columns. ``*`` in a name stands for any text and ``#`` for a
            whole number: ``"knn/top1_k#": Metric(column="kNN, k = {0}")``.
        name: Such as ``knn/top1_k200``.
    """
    for place, (pattern, metric) in enumerate(declarations.items()):
        found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.+)").replace(r"\#", r"(\d+)"), name)
        if found:
            groups = found.groups()
            texts = (metric.column, metric.line, metric.panel)
            column, line, panel = (text.format(*groups) if groups else text for text in texts)
            numbers = (int(group) for group in groups if group.isdecimal())
            return replace(
                metric,
                column=column,
                panel=panel or column,
                line=line,
                order=(*metric.order, place, *numbers),
            )
    return None


def check_declarations(declarations: Mapping[str, Metric], owner: str) -> None:
    """Refuse templates that name more than their wildcards match, which no metric could be shown by.

    Args:
        declarations: As for :func:`declared`.
        owner: Class that declares them, for the message.

    Raises:
        ValueError: Naming the first such template.
    """
    for pattern, metric in declarations.items():
        matches = ["1"] * (pattern.count("*") + pattern.count("#"))
        for text in (metric.column, metric.line, metric.panel) if matches else ():
            try:
                text.format(*matches)
            except (IndexError, KeyError, ValueError) as error:
                raise ValueError(
                    f"Cannot show {pattern} of {owner}: {text!r} asks for other texts than the wildcards of "
                    f"the name match, found {len(matches)} of these. Write {{0}} for what the first one matches, {{1}} for "
                    "the second, and a brace itself twice."
                ) from error


def descriptions(declarations: Mapping[str, Metric], names: Iterable[str]) -> dict[str, Any]:
    """Describe measured metrics by their declarations, as plain data; leave out names without a declaration."""
    found = {name: metric for name in names if (metric := declared(declarations, name)) is not None}
    tables = {metric.table.key: _plain(metric.table) for metric in found.values() if metric.table is not None}
    metrics = {
        name: {**_plain(metric), "table": None if metric.table is None else metric.table.key}
        for name, metric in found.items()
    }
    return {"metrics": metrics, "tables": tables} if found else {}


def joined(parts: Iterable[object]) -> dict[str, Any]:
    """Descriptions of several measurements as one; of two for one name the later counts."""
    metrics: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for part in parts:
        for whole, key in ((metrics, "metrics"), (tables, "tables")):
            more = part.get(key) if isinstance(part, Mapping) else None
            whole.update(more if isinstance(more, Mapping) else {})
    return {"metrics": metrics, "tables": tables} if metrics else {}


def described(plain: object, problems: list[str] | None = None) -> dict[str, Metric]:
    """Metrics by name, as :func:`descriptions` left them in a file that anybody may have written.

    Args:
        plain: Contents of the file. What is not of the type that it should have is left out, as are unknown fields.
        problems: Receives what was left out, as sentences.
    """
    notes: list[str] = [] if problems is None else problems
    parts = plain if isinstance(plain, Mapping) else {}
    tables: dict[str, Table] = {}
    for key, found in _items(parts.get("tables"), notes):
        table = checked(Table, {**found, "key": key}, f"table {key}", notes)
        tables |= {key: table} if table is not None else {}
    metrics: dict[str, Metric] = {}
    for name, found in _items(parts.get("metrics"), notes):
        own = {key: value for key, value in found.items() if key != "table"}
        metric = checked(Metric, own, f"metric {name}", notes)
        if metric is not None:
            at = found.get("table", OTHER.key)
            table = None if at is None else tables.get(at, OTHER) if isinstance(at, str) else OTHER
            metrics[name] = replace(metric, table=table, panel=metric.panel or metric.column)
    return metrics


def _plain(value: Table | Metric) -> dict[str, Any]:
    """The fields that differ from their defaults, but for the table and its key, which stand apart."""
    own = {field.name: getattr(value, field.name) for field in fields(value) if field.name not in ("table", "key")}
    defaults = {field.name: field.default for field in fields(value)}
    return {
        name: list(found) if isinstance(found, tuple) else found
        for name, found in own.items()
        if found != defaults[name]
    }


def _items(found: object, problems: list[str]) -> Iterable[tuple[str, Mapping[Any, Any]]]:
    if not isinstance(found, Mapping):
        return
    if len(found) > _MAX_METRICS:
        problems.append(f"It describes {len(found):,} metrics; the first {_MAX_METRICS} are read.")
    for name, fields_ in list(found.items())[:_MAX_METRICS]:
        if isinstance(name, str) and len(name) <= _MAX_NAME and isinstance(fields_, Mapping):
            yield name, fields_
        else:
            problems.append(f"{str(name)[:_MAX_NAME]} should be a name of a metric or table with a mapping.")


def checked(kind: Any, found: Mapping[Any, Any], what: str, problems: list[str]) -> Any:
    """A description from an untrusted file; None where a field has the wrong type.

    Args:
        kind: :class:`Table`, :class:`Metric` or :class:`~ssl_lab.captions.Caption`.
        found: Its plain fields.
        what: What messages call it.
        problems: Receives what was left out, as sentences.
    """
    known = {field.name for field in fields(kind)}
    unknown = [str(name) for name in found if name not in known]
    if unknown:
        problems.append(f"{what} has the unknown field {unknown[0][:40]}, which is ignored.")
    own = {name: value for name, value in found.items() if name in known}
    wrong = [name for name, value in own.items() if not _fits(kind, name, value)]
    missing = [name for name in ("column" if kind is Metric else "title",) if name not in own]
    if wrong or missing:
        problems.append(f"{what} is shown without its description: {(wrong or missing)[0]} is not what it should be.")
        return None
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in own.items()})


def _fits(kind: Any, name: str, value: object) -> bool:
    if name in ("percent", "competes", "secondary", "same_tiles"):
        return isinstance(value, bool)
    if name == "order":
        numbers = value if kind is Metric else [value]
        if not isinstance(numbers, list) or len(numbers) > _MAX_ORDER:
            return False
        return all(isinstance(number, int) and abs(number) < 1 << 60 for number in numbers)
    if not isinstance(value, str) or len(value) > (_MAX_TEXT if name == "explanation" else _MAX_NAME):
        return False
    if name == "better":
        return value in ("higher", "lower", "")
    return name != "format" or _FORMAT.fullmatch(value) is not None
