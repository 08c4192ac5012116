"""Comparison of several runs: common and differing settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ssl_lab.measured import Record, rows_of, shown_names
from ssl_lab.metrics import joined
from ssl_lab.runs.read import Run

NOT_CHOICES = (
    "run_dir", "sweep_dir", "logger", "ckpt", "resume", "force", "trial", "pictures_every_n_epochs",
    "save_every_n_minutes", "save_every_n_steps",
)  # fmt: skip
"""Settings that differ between runs and change nothing."""


def run_labels(runs: Sequence[Run]) -> list[str]:
    """A short, unique name for each run: its method and whatever else it takes to tell the runs apart."""
    parts = [[run.method] for run in runs]
    for key, words in (("data", "{}"), ("encoder", "{}"), ("start", "{} weights"), ("seed", "seed {}")):
        values = [run.summary.get("pretraining" if key == "start" else key) or run.summary.get(key) for run in runs]
        if len(set(map(str, values))) > 1:
            for part, value in zip(parts, values, strict=True):
                part += [words.format(value)] if value not in (None, "") else []
    labels = [" · ".join(part) for part in parts]
    differences = {key: texts for key, texts in config_differences(runs).items() if key != "seed"}
    if len(set(labels)) < len(labels) and 0 < len(differences) <= 2:
        for key, texts in differences.items():
            labels = [f"{label} · {key.rsplit('.', 1)[-1]} {text}" for label, text in zip(labels, texts, strict=True)]
    if len(set(labels)) < len(labels):
        depth = next((k for k in range(1, 5) if len({run.path.parts[-k:] for run in runs}) == len(runs)), 1)
        places = ["/".join(run.path.parts[-depth:]) for run in runs]
        labels = [f"{label} · {place}" for label, place in zip(labels, places, strict=True)]
    seen: Counter[str] = Counter()
    unique = []
    for label in labels:
        seen[label] += 1
        unique.append(label if seen[label] == 1 else f"{label} (no. {seen[label]})")
    return unique


def config_differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: dotted key to each run's value, a dash where it has none."""
    flat = [flatten(run.config) for run in runs if run.config]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    found = {}
    for key in keys:
        texts = [flatten(run.config).get(key, "–") for run in runs]
        if key.split(".")[0] not in NOT_CHOICES and len(set(texts)) > 1:
            found[key] = texts
    return found


def evaluations_by_data(runs: Sequence[Run], labels: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """One evaluation for each data set and split, as numbers on different data cannot be compared.

    Returns:
        Pairs of a title such as ``"Digits, test split"`` and an evaluation as in ``evaluation.json``.
    """
    groups: dict[str, list[tuple[Run, str]]] = {}
    for run, label in zip(runs, labels, strict=True):
        if run.evaluation and run.measured:
            groups.setdefault(f"{run.data}, {run.evaluation.get('split', 'test')} split", []).append((run, label))
    return [
        (title, side_by_side([run.measured for run, _ in members], [label for _, label in members]))
        for title, members in groups.items()
    ]


def side_by_side(measured: Sequence[Sequence[Record]], labels: Sequence[str]) -> dict[str, Any]:
    """Evaluations of several runs as one: yardsticks first, then a row for each run.

    Args:
        measured: Of each run the records of its evaluation; the last row of the last one is the run's own.
        labels: Names of the runs' own rows; see :func:`run_labels`.

    Returns:
        One evaluation, in which a metric that runs measured in different ways is a column for each. A yardstick is one row
        as long as runs agree on what they share of it, to the last digit; where they do not, as on random encoders of two
        architectures, it carries the label of the first run it came with.
    """
    yardsticks: dict[str, list[tuple[str, dict[str, float]]]] = {}
    own = []
    names = iter(shown_names([record for records in measured for record in records]))
    for records, label in zip(measured, labels, strict=True):
        *baselines, result = rows_of(records, list(islice(names, len(records))))
        own.append({"name": label, "metrics": result["metrics"]})
        for row in baselines:
            known = yardsticks.setdefault(row["name"], [])
            same = [metrics for _, metrics in known if _agree(metrics, row["metrics"])]
            if same:
                same[0].update(row["metrics"])
            else:
                known.append((label, dict(row["metrics"])))
    rows = [
        {"name": name if len(known) == 1 else f"{name} · {label}", "metrics": metrics}
        for name, known in yardsticks.items()
        for label, metrics in known
    ]
    return {"rows": rows + own, "described": joined(r.get("described") for records in measured for r in records)}


def _agree(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return all(a[name] == b[name] for name in a.keys() & b.keys())


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys and texts."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "null" if value is None else str(value)
    return flat
