"""A word where a result is poor: what an evaluation and its learning curves show, and the likeliest remedy.

Nothing here measures anything: it reads ``evaluation.json``, ``metrics.csv`` and facts of the training. A difference within
one standard error of a share on the scored samples counts as none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, TypeAlias, get_args

from ssl_lab.improving import Curve, improvement
from ssl_lab.measured import Record, base_name, current, described_in, of_input
from ssl_lab.metrics import Metric, described, joined

Kind: TypeAlias = Literal["collapsed", "start", "frequencies", "input", "mixed", "unconverged"]
"""What may be poor, the worst first: collapsed features; no better than the encoder before training, than the frequencies
of classes, words or pixels, or than raw input; better in one metric and clearly worse in another; still improving."""

FREQUENCIES = "guessing the most frequent class"
_OF_CLASSES = re.compile(r"(.*/)?top1(_k\d+)?|finetune/accuracy")  # accuracies of one class for each sample
_STARTS = ("random encoder", "initial encoder")  # names of rows, for records that do not say their kind
_CLEARLY = 2.0  # units of chance from which one metric counts although another is better
_MAX_NAMED = 2  # metrics in one line
_MAX_TEXT = 1000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is poor.

    Attributes:
        kind: What it is.
        subject: Of whom it is said, such as ``kNN 45.1 %``.
        verb: ``is``, ``are`` or ``have``.
        rest: The rest of the sentence, such as ``below raw pixels (62.3 %)``.
    """

    kind: Kind
    subject: str
    verb: str
    rest: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is poor, the worst first, and what to do about it; empty where all is well.

    Attributes:
        findings: What is poor.
        remedy: One or two sentences; empty if the training is not known.
    """

    findings: Sequence[Finding] = ()
    remedy: str = ""

    def __bool__(self) -> bool:
        """Whether anything is poor."""
        return bool(self.findings)

    def __str__(self) -> str:
        """One line; empty where all is well."""
        return f"{self.title}: {self.said} {self.remedy}".rstrip() if self.findings else ""

    @property
    def said(self) -> str:
        """The findings as a sentence, which begins as its first subject does."""
        said = []
        for (subject, verb), group in groupby(self.findings, lambda finding: (finding.subject, finding.verb)):
            said.append(f"{subject} {verb} {' and '.join(finding.rest for finding in group)}")
        return f"{'; '.join(said)}."

    @property
    def title(self) -> str:
        """Two words for all of it."""
        worst = self.findings[0].kind if self.findings else ""
        return {"unconverged": "Not converged", "mixed": "Mixed result"}.get(worst, "Poor result")

    def to_json(self) -> dict[str, Any]:
        """As plain data, for ``summary.json``."""
        return {"findings": [vars(finding) for finding in self.findings], "remedy": self.remedy}


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    kind: Kind
    row: str
    metric: Metric
    own: float
    other: float
    num_scored: int | None
    is_mean: bool  # over draws or seeds; counts where nothing else is measured

    @property
    def gain(self) -> float:
        """How much better the own value is, in units of what may be chance."""
        gap = self.other - self.own if self.metric.better == "lower" else self.own - self.other
        return gap / max(self._chance, 1e-12)

    @property
    def _chance(self) -> float:
        if not self.metric.percent:
            return 0.01 * abs(self.other)  # of means over tokens and pixels, which have no standard error here
        if self.num_scored is None:
            return 0.0
        share = min(max((self.own + self.other) / 2, 0.0), 1.0)
        return math.sqrt(max(share * (1 - share), 0.25 / max(self.num_scored, 1)) / max(self.num_scored, 1))

    def shown(self, value: float) -> str:
        return self.metric.show(value) + (" %" if self.metric.percent else "")

    @property
    def named(self) -> str:
        """Such as ``kNN 45.1 %``."""
        return f"{self.metric.column.removesuffix(', %')} {self.shown(self.own)}"


def judged(
    evaluation: Mapping[str, Any], *, curves: Mapping[str, Curve] | None = None, collapse: str = "", objective: str = ""
) -> list[Finding]:
    """Find what is poor in an evaluation and its training.

    Args:
        evaluation: Contents of ``evaluation.json``.
        curves: Columns of ``metrics.csv`` by name, if it is to be known whether training has converged.
        collapse: How features were collapsed at the end, as the end of a sentence; empty if they were not.
        objective: The metric that matters most, such as ``eval/linear/top1``; the first of the tables if not given.

    Returns:
        Findings, the worst first.
    """
    findings = []
    if collapse:
        findings.append(Finding(kind="collapsed", subject="the features", verb="have", rest=f"collapsed: {collapse}"))
    try:
        records = [record for record in current(evaluation) if "on_data" not in (record.get("settings") or {})]
        known = described(joined(described_in(evaluation)))
        findings += _poor(pair for record in records for pair in _comparisons(record, known))
    except (TypeError, AttributeError, KeyError, ValueError, IndexError):  # a file that anybody may have written
        known = {}
    if curves and (found := improvement(curves, known, objective)):
        findings.append(Finding(kind="unconverged", subject=found[0], verb="was", rest=found[1]))
    order = get_args(Kind)
    return sorted(findings, key=lambda finding: order.index(finding.kind))


def compared(
    own: Mapping[str, float],
    others: Mapping[str, tuple[Kind, Mapping[str, float]]],
    metrics: Mapping[str, Metric],
    *,
    num_scored: int | None = None,
    frequency: float | None = None,
) -> list[Finding]:
    """The same of rows of any table, such as one weights' results beside those of random weights.

    Args:
        own: The metrics of the judged row.
        others: Those of rows that it should be better than, by name, each with what it means to be below it.
        metrics: What they mean, by name.
        num_scored: Number of scored samples.
        frequency: Share of the most frequent class among them.
    """
    pairs = [
        *(p for row, (kind, values) in others.items() for p in _pairs(kind, row, own, values, metrics, num_scored)),
        *_of_frequency(own, metrics, frequency, num_scored),
    ]
    order = get_args(Kind)
    return sorted(_poor(pairs), key=lambda finding: order.index(finding.kind))


def _comparisons(record: Record, known: Mapping[str, Metric]) -> list[_Comparison]:
    """The judged row of a record beside its baselines, frequencies and chance."""
    rows = dict(record["metrics"])
    judged = list(rows)[-1]
    own = rows.pop(judged)
    metrics = {**known, **described(record.get("described"))}
    scored = str((record.get("data") or {}).get("scored") or "").split(" ")[0]
    num_scored = int(scored) if scored.isdecimal() else None
    kinds = record.get("baselines") or {}
    inputs = of_input([record])
    found: list[_Comparison] = []
    for row, values in rows.items():
        kind: Kind | None = "input" if row in inputs else None
        if kinds.get(row) == "encoder" or row in _STARTS:
            kind = "start"
        if kind is not None:
            name = f"the {row}" if kind == "start" else row
            found += _pairs(kind, name, own, values, metrics, num_scored)
    for name, value in own.items():
        yardstick = metrics.get(name)
        if yardstick is None or not yardstick.reference or not yardstick.competes:
            continue
        for other, metric in metrics.items():
            if not metric.reference and (metric.column, metric.table) == (yardstick.column, yardstick.table):
                values = {other: value} if other in own else {}
                found += _pairs("frequencies", yardstick.reference, own, values, metrics, num_scored)
    return [*found, *_of_frequency(own, metrics, record.get("frequency"), num_scored)]


def of_classes(name: str) -> bool:
    """Return whether a metric is the share of samples whose one class was found."""
    return _OF_CLASSES.fullmatch(base_name(name)) is not None


def _of_frequency(
    own: Mapping[str, float], metrics: Mapping[str, Metric], frequency: float | None, num_scored: int | None
) -> list[_Comparison]:
    if frequency is None:
        return []
    values = {name: frequency for name in own if of_classes(name)}
    return _pairs("frequencies", FREQUENCIES, own, values, metrics, num_scored)


def _pairs(
    kind: Kind,
    row: str,
    own: Mapping[str, float],
    other: Mapping[str, float],
    metrics: Mapping[str, Metric],
    num_scored: int | None,
) -> list[_Comparison]:
    """Compare the metrics that both rows have, that have a direction, and whose best row wins."""
    found = []
    for name in other:
        metric = metrics.get(base_name(name))
        if metric is None or not metric.better or not metric.competes or metric.reference:
            continue
        if metric.table is None or metric.table.secondary:
            continue
        values = own.get(name), other[name]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            found.append(
                _Comparison(
                    kind=kind,
                    row=row,
                    metric=metric,
                    own=values[0] or 0.0,
                    other=values[1],
                    num_scored=num_scored,
                    is_mean=f"{name}_std" in own,
                )
            )
    return found


def _poor(pairs: Iterable[_Comparison]) -> list[Finding]:
    """Rows that the judged one is better than in no metric."""
    by_row: dict[tuple[Kind, str], list[_Comparison]] = {}
    for pair in pairs:
        by_row.setdefault((pair.kind, pair.row), []).append(pair)
    found = []
    for (kind, row), of_row in by_row.items():
        single = [pair for pair in of_row if not pair.is_mean]
        found.append(_shortfall(kind, row, single or of_row))
    return [finding for finding in found if finding is not None]


def _shortfall(kind: Kind, row: str, pairs: Sequence[_Comparison]) -> Finding | None:
    if kind == "frequencies" and any(pair.gain <= 0 for pair in pairs):
        pairs = [pair for pair in pairs if pair.gain <= 0]  # one that reads nothing from its input is enough
    if better := [pair for pair in pairs if pair.gain > 1]:
        return _mixed(row, better, [pair for pair in pairs if pair.gain < -_CLEARLY])
    worse = [pair for pair in pairs if pair.gain < -1]
    if kind == "input" and not worse:  # as good as raw input, which may leave nothing to gain
        return None
    named = sorted(worse or pairs, key=lambda pair: pair.metric.order)[:_MAX_NAMED]
    if worse:
        words = "worse than" if any(pair.metric.better == "lower" for pair in named) else "below"
    else:
        words = "no better than"
    return Finding(
        kind=kind,
        subject=" and ".join(pair.named for pair in named),
        verb="is" if len(named) == 1 else "are",
        rest=f"{words} {row} ({', '.join(pair.shown(pair.other) for pair in named)})",
    )


def _mixed(row: str, better: Sequence[_Comparison], worse: Sequence[_Comparison]) -> Finding | None:
    if not worse:
        return None
    worst = min(worse, key=lambda pair: pair.gain)
    best = max(better, key=lambda pair: pair.gain)
    words = "worse than" if worst.metric.better == "lower" else "below"
    than = f"{best.named} is better than its {best.shown(best.other)}"
    return Finding(
        kind="mixed",
        subject=worst.named,
        verb="is",
        rest=f"{words} {row} ({worst.shown(worst.other)}), while {than}",
    )


def stored(summary: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> Verdict:
    """The verdict that a run has kept; of older runs what the evaluation alone shows, without a remedy.

    Args:
        summary: Contents of ``summary.json``, which anybody may have written.
        evaluation: Contents of ``evaluation.json``, if there is one.
    """
    if summary.get("status") != "finished":
        return Verdict()
    kept = summary.get("verdict")
    if not isinstance(kept, Mapping):
        return Verdict(findings=judged(evaluation or {}))
    remedy, plain = kept.get("remedy"), kept.get("findings")
    findings = [found for part in (plain if isinstance(plain, list) else []) if (found := _finding(part)) is not None]
    return Verdict(findings=findings, remedy=remedy[:_MAX_TEXT] if isinstance(remedy, str) else "")


def _finding(part: object) -> Finding | None:
    if not isinstance(part, Mapping) or part.get("kind") not in get_args(Kind):
        return None
    texts = [part.get(name) for name in ("subject", "verb", "rest")]
    if not all(isinstance(text, str) for text in texts):
        return None
    subject, verb, rest = (str(text)[:_MAX_TEXT] for text in texts)
    return Finding(kind=part["kind"], subject=subject, verb=verb, rest=rest)


def without_remedy(verdict: Verdict) -> Verdict:
    """The findings alone, for a table of many runs."""
    return replace(verdict, remedy="")
