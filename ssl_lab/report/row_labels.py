"""Names of a leaderboard's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ssl_lab.runs.results import Result, row_settings

_MAX_DIFFERENCES = 3  # in a row's name


def row_labels(rows: Sequence[Sequence[Result]]) -> list[str]:
    """A unique name for each row: method and weights, and whatever else it takes to tell rows apart."""
    firsts = [row[0] for row in rows]
    parts = [[str(first.facts.method or first.facts.name)] for first in firsts]
    for part, first in zip(parts, firsts, strict=True):
        part += [f"{first.start} weights"] if first.start else []
    if len({first.facts.encoder for first in firsts}) > 1:
        for part, first in zip(parts, firsts, strict=True):
            part.append(str(first.facts.encoder))
    if len({first.checkpoint for first in firsts}) > 1:
        for part, first in zip(parts, firsts, strict=True):
            part.append(f"{first.checkpoint} checkpoint")
    labels = [", ".join(part) for part in parts]
    for label, count in Counter(labels).items():
        places = [k for k, other in enumerate(labels) if other == label]
        if count > 1:
            for place, difference in zip(places, _distinguished([firsts[k] for k in places]), strict=True):
                labels[place] = f"{label}, {difference}"
    return labels


def _distinguished(firsts: Sequence[Result]) -> list[str]:
    """The settings in which these differ if they are few, else their folders."""
    choices = [row_settings(first) for first in firsts]
    keys = dict.fromkeys(key for settings in choices for key in settings)
    differing = [key for key in keys if len({settings.get(key) for settings in choices}) > 1]
    labels = [" ".join(f"{key}={settings.get(key, '–')}" for key in differing) for settings in choices]
    if 0 < len(differing) <= _MAX_DIFFERENCES and len(set(labels)) == len(labels):
        return labels
    return [str(first.facts.path) for first in firsts]
