"""Finished runs with what was measured of them, and which of them are alike but for their seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ssl_lab.report.compare import NOT_CHOICES, flatten
from ssl_lab.report.run import YAML_LOADER
from ssl_lab.report.runs import RunFacts, command_of

_NOT_OF_A_ROW = (*NOT_CHOICES, "seed", "source")
"""Settings that differ between runs of one row, or change nothing."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run with its evaluation.

    Attributes:
        facts: What its summary says.
        settings: Its configuration, flat: dotted key to value as text.
        split: The split that was judged.
        metrics: What was measured on it.
        baselines: The same of raw input and the like, by name.
        checkpoint: ``last``, or ``best`` on the validation split.
        start: Of a fine-tuning, the weights it began with; else empty.
        hardware: What it ran on.
        command: What does it again.
    """

    facts: RunFacts
    settings: Mapping[str, str]
    split: str
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    checkpoint: str
    start: str
    hardware: str
    command: Sequence[str]


def judged_runs(runs: Sequence[RunFacts]) -> tuple[list[Result], list[str]]:
    """Finished runs with an evaluation, and how many others there are; of two that are equal with their seed the newer."""
    without: Counter[str] = Counter()
    results: dict[tuple[Any, ...], Result] = {}
    for run in runs:
        result = _read(run) if run.status == "finished" else None
        if result is None:
            without[run.status if run.status != "finished" else "finished without evaluation"] += 1
        elif (key := (*same_but_for_seed(result), run.seed)) in results:
            without["repeated with the same seed"] += 1
        else:
            results[key] = result
    return list(results.values()), [f"{count:,} {word}" for word, count in sorted(without.items())]


def _read(run: RunFacts) -> Result | None:
    try:
        evaluation = json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))
        summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        settings = yaml.load((run.path / "config.yaml").read_text(encoding="utf-8"), YAML_LOADER)
        *baselines, own = [(row["name"], _numbers(row["metrics"])) for row in evaluation["rows"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return None
    if not own[1] or not isinstance(settings, dict):
        return None
    return Result(
        facts=run,
        settings=flatten(settings),
        split=str(evaluation.get("split", "test")),
        metrics=own[1],
        baselines={name: metrics for name, metrics in baselines if metrics},
        checkpoint=str(summary.get("checkpoint") or "last"),
        start=str(summary.get("start") or ""),
        hardware=str(summary.get("hardware") or ""),
        command=command_of(run),
    )


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def settings_of(result: Result, group: str, without: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Settings of one group, but for some."""
    return tuple(
        (key, value)
        for key, value in sorted(result.settings.items())
        if key.split(".")[0] == group and key.split(".")[-1] not in (*without, "seed" if group == "data" else "")
    )


def row_settings(result: Result) -> dict[str, str]:
    """Settings by which rows differ."""
    return {
        key: value
        for key, value in result.settings.items()
        if key.split(".")[0] not in _NOT_OF_A_ROW and key != "data.seed"
    }


def same_but_for_seed(result: Result) -> tuple[Any, ...]:
    """What runs of one row have in common."""
    return result.facts.data, result.split, result.start, tuple(sorted(row_settings(result).items()))
