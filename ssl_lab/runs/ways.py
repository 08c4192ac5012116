"""In which ways runs measured one metric: what must be the same for their values to be ranked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lab.limited import UnreadableFileError, parse_yaml, read_text
from ssl_lab.measured import base_name, settings_of_metric, shown_names, way_of
from ssl_lab.runs.compare import flatten
from ssl_lab.runs.facts import RunFacts

LOADING = ("batch_size", "eval_batch_size", "device_cache_gib", "num_workers")
"""Settings of ``data`` that leave the samples as they are."""
_PARTS = ("evaluation", "data", "evaluate_max_train_samples")
_SECTION = re.compile(rf"^({'|'.join(_PARTS)}):.*\n?(?:[ \-#].*\n?|\n)*", re.MULTILINE)

Measuring = tuple[str | None, str]
"""The title of a run's data, and as JSON the settings that say how the run measures."""


def measuring_in(title: str | None, config: Mapping[str, Any]) -> Measuring:
    """Return the way a run on some data measures, by its configuration; runs that agree share one text."""
    parts = {name: config[name] for name in _PARTS if name in config}
    return title, sys.intern(json.dumps(parts, skipkeys=True, default=str))


def measurings_of(runs: Sequence[RunFacts]) -> list[Measuring]:
    """Return the way each run measures; parse configurations once where runs agree on these parts of them."""
    known: dict[str, Mapping[str, Any]] = {}
    found = []
    for run in runs:
        path = run.path / "config.yaml"
        try:
            text = "".join(match[0] for match in _SECTION.finditer(read_text(path, within=run.path)))
            if text not in known:
                known[text] = (parse_yaml(text, path) if text else None) or {}
            found.append(measuring_in(run.data, known[text]))
        except (FileNotFoundError, UnreadableFileError):  # reported by the reader of its facts
            found.append(measuring_in(run.data, {}))
    return found


def ways_of(measurings: Sequence[Measuring], metric: str, *, across_data: bool = True) -> list[str]:
    """Of each run, how its measuring of a metric differs from that of others: ``num_neighbors=1``; empty if none does.

    Args:
        measurings: Those of the runs that have the metric.
        metric: Its name.
        across_data: Whether to tell data sets of different titles apart; those of one title with different settings
            always are.
    """
    distinct = list(dict.fromkeys(measurings))
    if len(distinct) == 1:
        return [""] * len(measurings)
    settings = [_settings(text, metric) for _, text in distinct]
    titles = [None if elsewhere else title for (title, _), (*_, elsewhere) in zip(distinct, settings, strict=True)]
    differing = _differing_within(titles, [data for _, data, _ in settings])
    records = [
        {
            "settings": {**own, **{key: value for key, value in data.items() if key in differing}},
            "data": {"title": title} if across_data else {},
            "metrics": {"": {base_name(metric): 0.0}},
        }
        for title, (own, data, _) in zip(titles, settings, strict=True)
    ]
    ways = [way_of(name) for names in shown_names(records) for name in names.values()]
    return [dict(zip(distinct, ways, strict=True))[measuring] for measuring in measurings]


def _settings(text: str, metric: str) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """The settings of a metric's protocol, those of its data, and whether these are other data than the run's."""
    split, _, name = metric.partition("/")
    if split not in ("eval", "test"):
        split, name = "", metric
    config = json.loads(text)
    nodes, data = config.get("evaluation"), config.get("data")
    own, elsewhere = settings_of_metric(base_name(name), nodes) if isinstance(nodes, Mapping) else ({}, None)
    data = data if elsewhere is None else elsewhere
    if split == "eval" and "evaluate_max_train_samples" in config:
        own = {**own, "evaluate_max_train_samples": config["evaluate_max_train_samples"]}
    of_data = flatten(data, "data.") if isinstance(data, Mapping) else {}
    differing = {key: value for key, value in of_data.items() if key.split(".")[1] not in (*LOADING, "seed")}
    return own, differing, elsewhere is not None


def _differing_within(titles: Sequence[str | None], settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """The settings that data of one title differ in; the titles tell of the others."""
    values: dict[tuple[str | None, str], set[Any]] = {}
    for title, of_one in zip(titles, settings, strict=True):
        for key, value in of_one.items():
            values.setdefault((title, key), set()).add(value)
    return {key for (_, key), found in values.items() if len(found) > 1}
