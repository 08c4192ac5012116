"""Whether a training was still improving when it ended, by its learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ssl_lab.metrics import Metric

_MIN_EVALUATIONS = 4
_MIN_LOSSES = 15  # three in each fifth
_LEAST_GAIN = 0.01  # of a share, or of another metric's size: evaluations waver by less than this seldom
_LEAST_FALL = 0.1  # of all the fall of the loss; a steady fall has 0.25, an exponential one that has ended 0.01


class Curve(Protocol):
    """One logged metric: values at increasing optimizer steps."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps."""

    @property
    def values(self) -> Sequence[float]:
        """The values."""


def improvement(
    curves: Mapping[str, Any], metrics: Mapping[str, Metric], objective: str = ""
) -> tuple[str, str] | None:
    """What was still improving at the end, and how, as a subject and the end of a sentence; None if nothing was.

    The validation metric decides where it was measured four times or more: it ended with its best value, which is clearly
    above that of three quarters of the training. Otherwise the training loss does: its mean over the last fifth of the
    training lies below that over the fifth before by more than its noise and by a tenth of all its fall.

    Args:
        curves: Columns of ``metrics.csv`` by name, each a :class:`Curve`.
        metrics: What evaluation metrics mean, by name.
        objective: The metric that matters most, such as ``eval/linear/top1``.
    """
    names = [name for name in curves if name.startswith("eval/") and _counts(metrics.get(name.removeprefix("eval/")))]
    names.sort(key=lambda name: (name != objective, metrics[name.removeprefix("eval/")].order))
    if names and len(curves[names[0]].values) >= _MIN_EVALUATIONS:
        return _rising(curves[names[0]], metrics[names[0].removeprefix("eval/")])
    return _falling(curves["train/loss"]) if "train/loss" in curves else None


def _counts(metric: Metric | None) -> bool:
    return (
        metric is not None
        and bool(metric.better)
        and metric.competes
        and not metric.reference
        and metric.table is not None
        and not metric.table.secondary
    )


def _rising(curve: Curve, metric: Metric) -> tuple[str, str] | None:
    steps, values = curve.steps, list(curve.values)
    before = [value for step, value in zip(steps, values, strict=True) if step <= 0.75 * steps[-1]]
    if not before or not all(map(_is_number, values)):
        return None
    sign = -1 if metric.better == "lower" else 1
    last, reached = values[-1], before[-1]
    least = 2 * _LEAST_GAIN * (1 if metric.percent else abs(last))
    if sign * last < max(sign * value for value in values) or sign * (last - reached) < least:
        return None
    unit = " %" if metric.percent else ""
    gained = f"{metric.show(reached)} to {metric.show(last)}{unit} over the last quarter"
    return f"{metric.column.removesuffix(', %')} on the validation split", f"still improving at the end ({gained})"


def _falling(curve: Curve) -> tuple[str, str] | None:
    steps, values = curve.steps, curve.values
    if len(values) < _MIN_LOSSES or not all(map(_is_number, values)):
        return None
    fifths: list[list[float]] = [[] for _ in range(5)]
    for step, value in zip(steps, values, strict=True):
        fifths[min(4, max(0, 5 * step // (steps[-1] + 1)))].append(value)
    first, before, last = fifths[0], fifths[3], fifths[4]
    if min(map(len, (first, before, last))) < 2:
        return None
    fall = statistics.fmean(before) - statistics.fmean(last)
    whole = statistics.fmean(first) - statistics.fmean(last)
    noise = (statistics.variance(before) / len(before) + statistics.variance(last) / len(last)) ** 0.5
    if whole <= 0 or fall < _LEAST_FALL * whole or fall < 3 * noise:
        return None
    return "the loss", (
        f"still falling at the end ({statistics.fmean(before):.4g} to {statistics.fmean(last):.4g} over the last fifth)"
    )


def _is_number(value: float) -> bool:
    return abs(value) < float("inf")
