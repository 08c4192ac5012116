"""What several runs have in common and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lab.report.run import Run

_NOT_CHOICES = ("run_dir", "logger")  # differ between any two runs and change nothing


def run_labels(runs: Sequence[Run]) -> list[str]:
    """A short, unique name for each run: its method and whatever else it takes to tell the runs apart."""
    parts = [[run.method] for run in runs]
    for key in ("data", "encoder", "seed"):
        values = [run.summary.get(key) for run in runs]
        if len(set(map(str, values))) > 1:
            for part, value in zip(parts, values, strict=True):
                part.append(f"seed {value}" if key == "seed" else str(value or "?"))
    labels = [" · ".join(part) for part in parts]
    differences = {key: texts for key, texts in config_differences(runs).items() if key != "seed"}
    if len(set(labels)) < len(labels) and 0 < len(differences) <= 2:
        for key, texts in differences.items():
            labels = [f"{label} · {key.rsplit('.', 1)[-1]} {text}" for label, text in zip(labels, texts, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} · {run.path.name}" for label, run in zip(labels, runs, strict=True)]
    seen: Counter[str] = Counter()
    unique = []
    for label in labels:
        seen[label] += 1
        unique.append(label if seen[label] == 1 else f"{label} (no. {seen[label]})")
    return unique


def config_differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: dotted key to each run's value, a dash where it has none."""
    flat = [_flatten(run.config) for run in runs if run.config]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    found = {}
    for key in keys:
        texts = [_flatten(run.config).get(key, "–") for run in runs]
        if key.split(".")[0] not in _NOT_CHOICES and len(set(texts)) > 1:
            found[key] = texts
    return found


def evaluations_by_data(runs: Sequence[Run], labels: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """One evaluation for each data set and split, as numbers on different data cannot be compared.

    A run's own row, the last of its evaluation, is named by the run's label. Yardsticks come first: once if all
    runs agree on them to the last digit, as on raw pixels; else once for each run.

    Returns:
        Pairs of a title such as ``"Digits, test split"`` and an evaluation as in ``evaluation.json``.
    """
    groups: dict[str, list[tuple[Run, str]]] = {}
    for run, label in zip(runs, labels, strict=True):
        if run.evaluation and run.evaluation["rows"]:
            groups.setdefault(f"{run.data}, {run.evaluation.get('split', 'test')} split", []).append((run, label))
    return [(title, {"rows": _merged(members)}) for title, members in groups.items()]


def _merged(members: Sequence[tuple[Run, str]]) -> list[dict[str, Any]]:
    yardsticks: dict[str, list[tuple[str, Mapping[str, float]]]] = {}
    own = []
    for run, label in members:
        *baselines, result = (run.evaluation or {})["rows"]
        own.append({"name": label, "metrics": result["metrics"]})
        for row in baselines:
            yardsticks.setdefault(row["name"], []).append((label, row["metrics"]))
    rows = []
    for name, found in yardsticks.items():
        if all(metrics == found[0][1] for _, metrics in found):
            rows.append({"name": name, "metrics": found[0][1]})
        else:
            rows.extend({"name": f"{name} · {label}", "metrics": metrics} for label, metrics in found)
    return rows + own


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "null" if value is None else str(value)
    return flat
