"""In which ways runs measured one metric: what must be the same for their values to be ranked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lab.limited import UnreadableFileError, parse_yaml, read_text
from ssl_lab.measured import base_name, settings_of_metric, shown_names, way_of
from ssl_lab.report.compare import flatten
from ssl_lab.report.runs import RunFacts

LOADING = ("batch_size", "eval_batch_size", "device_cache_gib", "num_workers")
"""Settings of ``data`` that leave the samples as they are."""
_SECTION = re.compile(r"^(evaluation|data|evaluate_max_train_samples):.*\n?(?:[ \-#].*\n?|\n)*", re.MULTILINE)


def ways_of(runs: Sequence[RunFacts], metric: str) -> list[str]:
    """Of each run, how its measuring of a metric differs from that of others: ``num_neighbors=1``; empty if none does."""
    split, _, name = metric.partition("/")
    if split not in ("eval", "test"):
        split, name = "", metric
    sections: dict[str, dict[str, Any]] = {}
    records = []
    for run in runs:
        config = _sections(run, sections)
        nodes, data = config.get("evaluation"), config.get("data")
        settings = settings_of_metric(base_name(name), nodes) if isinstance(nodes, Mapping) else {}
        if isinstance(data, Mapping):
            kept = {key: value for key, value in data.items() if key not in (*LOADING, "seed")}
            settings = {**settings, **flatten(kept, "data.")}
        if split == "eval" and "evaluate_max_train_samples" in config:
            settings = {**settings, "evaluate_max_train_samples": config["evaluate_max_train_samples"]}
        records.append({"settings": settings, "data": {"title": run.data}, "metrics": {"": {base_name(metric): 0.0}}})
    return [way_of(name) for names in shown_names(records) for name in names.values()]


def _sections(run: RunFacts, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The parts of a configuration that say how was measured; parsed once where runs agree on them."""
    path = run.path / "config.yaml"
    try:
        text = "".join(match[0] for match in _SECTION.finditer(read_text(path, within=run.path)))
        if text not in known:
            known[text] = (parse_yaml(text, path) if text else None) or {}
    except (FileNotFoundError, UnreadableFileError):  # told of by the reader of its facts
        return {}
    return known[text]
