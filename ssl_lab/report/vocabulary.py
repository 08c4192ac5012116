"""Meaning of metric names for a reader, as described by the runs shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from ssl_lab.evaluation.geometry import metrics as geometry
from ssl_lab.evaluation.likelihood import metrics as likelihood
from ssl_lab.evaluation.probes import metrics as probes
from ssl_lab.evaluation.retrieval import metrics as retrieval
from ssl_lab.evaluation.samples import metrics as samples
from ssl_lab.measured import base_name, way_of
from ssl_lab.metrics import LATER, Metric, declared
from ssl_lab.tasks import metrics as finetuned


def _online(line: str) -> Metric:
    panel = "Accuracy on training batches, %"
    column = f"{line} on training batches"
    return Metric(column=column, table=None, panel=panel, line=line, better="higher", percent=True)


_ONLINE = {"online/linear/top1": _online("online linear probe"), "online/knn/top1": _online("online kNN")}
_WITHOUT_DESCRIPTIONS = (
    _ONLINE,
    *chain.from_iterable(family.DECLARED for family in (finetuned, probes, geometry, likelihood, samples, retrieval)),
)
"""Declarations of this package's protocols, for runs older than descriptions in results; others need no line."""


def describe(name: str, described: Mapping[str, Metric]) -> Metric:
    """Describe a metric such as ``knn/top1``; plainly, under its own name, if no description exists.

    Args:
        name: Its name, with the way in which it was measured where there are several.
        described: What the runs that are shown say of their metrics, by plain name.
    """
    plain = base_name(name)
    known = (declared(declarations, plain) for declarations in _WITHOUT_DESCRIPTIONS)
    metric = described.get(plain) or next((found for found in known if found is not None), None)
    if metric is None:
        metric = Metric(column=plain, panel=plain, format=".4g", order=(10 * LATER,))
    way = way_of(name)
    if not way:
        return metric
    column, line = (f"{text}, {way}" for text in (metric.column, metric.line))
    reference = f"{metric.reference}, {way}" if metric.reference else ""
    panel = column if metric.panel == metric.column else metric.panel
    order = (*metric.order, *map(int, re.findall(r"\d+", way)))
    return replace(metric, column=column, line=line, panel=panel, reference=reference, order=order)


def duration(seconds: float | None) -> str:
    """A wall time in the two units that matter: ``1 h 12 min``, ``4 min 5 s``, ``8.3 s``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
