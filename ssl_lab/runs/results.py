"""Finished runs with their metrics, grouped so that runs of a group differ only in their seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ssl_lab.limited import load_yaml
from ssl_lab.measured import Record, current, records_of, rows_of, shown_names
from ssl_lab.runs.compare import NOT_CHOICES, flatten
from ssl_lab.runs.facts import RunFacts
from ssl_lab.runs.files import command_of, noted, read_evaluation, read_summary
from ssl_lab.verdict import stored, without_remedy

_NOT_OF_A_ROW = (*NOT_CHOICES, "seed", "source")
"""Settings that differ between runs of one row, or change nothing."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run with its evaluation.

    Attributes:
        facts: What its summary says.
        settings: Its configuration, flat: dotted key to value as text.
        split: The split that was judged.
        measured: Records of what was measured.
        metrics: The same by name; see :func:`side_by_side`.
        baselines: The same of raw input and the like, by name.
        checkpoint: ``last``, or ``best`` on the validation split.
        start: Of a fine-tuning, the weights it began with: the method that trained them, ``pretrained`` or ``random``; else
            empty.
        hardware: What it ran on.
        command: What does it again.
        verdict: What is poor about it, as a line; empty where all is well.
    """

    facts: RunFacts
    settings: Mapping[str, str]
    split: str
    measured: Sequence[Record]
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    checkpoint: str
    start: str
    hardware: str
    command: Sequence[str]
    verdict: str = ""


def judged_runs(runs: Sequence[RunFacts]) -> tuple[list[Result], list[str]]:
    """Finished runs with an evaluation, and how many others there are; of two that are equal with their seed the newer."""
    without: Counter[str] = Counter()
    results: dict[tuple[Any, ...], Result] = {}
    damaged: list[str] = []
    for run in runs:
        problems = list(run.problems)
        result = _read(run, problems) if run.status == "finished" else None
        if result is None and problems:
            damaged.append(f"{run.path}: {problems[0]}")
        elif result is None:
            without[run.status if run.status != "finished" else "finished without evaluation"] += 1
        elif (key := (*same_but_for_seed(result), run.seed)) in results:
            without["repeated with the same seed"] += 1
        else:
            results[key] = result
    left_out = [f"{count:,} {word}" for word, count in sorted(without.items())]
    if damaged:
        left_out.append(f"{len(damaged):,} damaged ({damaged[0].rstrip('.')})")
    return list(results.values()), left_out


def _read(run: RunFacts, problems: list[str]) -> Result | None:
    evaluation = read_evaluation(run.path, problems)
    settings = noted(lambda: load_yaml(run.path / "config.yaml", within=run.path), problems, {})
    if not evaluation or not settings:
        return None
    nodes = settings.get("evaluation")
    measured = current({"measured": records_of(evaluation, nodes if isinstance(nodes, Mapping) else None)})
    metrics, baselines = _with_names(measured, shown_names(measured)) if measured else ({}, {})
    if not metrics:
        return None
    summary = read_summary(run.path, [])
    return Result(
        facts=run,
        settings=flatten(settings),
        split=measured[-1].get("split") or "test",
        measured=measured,
        metrics=metrics,
        baselines=baselines,
        checkpoint=summary.get("checkpoint") or "last",
        start=summary.get("pretraining") or summary.get("start") or "",
        hardware=summary.get("hardware") or "",
        command=command_of(run.path, []),
        verdict=str(without_remedy(stored(summary, evaluation))),
    )


def side_by_side(results: Sequence[Result]) -> list[Result]:
    """The same results with names of metrics that tell apart what some of them measured in different ways."""
    names = iter(shown_names([record for result in results for record in result.measured]))
    found = []
    for result in results:
        metrics, baselines = _with_names(result.measured, list(islice(names, len(result.measured))))
        found.append(replace(result, metrics=metrics, baselines=baselines))
    return found


def _with_names(
    measured: Sequence[Record], names: Sequence[Mapping[str, str]]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The run's own metrics, and those of the baselines by name."""
    *baselines, own = rows_of(measured, names)
    return _scores(own), {row["name"]: _scores(row) for row in baselines if row["metrics"]}


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row; values that are not finite are NaN, so that no mean over seeds hides them."""
    return {name: math.nan if value is None else value for name, value in row["metrics"].items()}


def settings_of(result: Result, group: str, without: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Settings of one group, but for some."""
    return tuple(
        (key, value)
        for key, value in sorted(result.settings.items())
        if key.split(".")[0] == group and key.split(".")[-1] not in (*without, "seed" if group == "data" else "")
    )


def row_settings(result: Result) -> dict[str, str]:
    """Settings that distinguish rows."""
    return {
        key: value
        for key, value in result.settings.items()
        if key.split(".")[0] not in _NOT_OF_A_ROW and key != "data.seed"
    }


def same_but_for_seed(result: Result) -> tuple[Any, ...]:
    """Return the facts that runs of one row have in common."""
    return result.facts.data, result.split, result.start, tuple(sorted(row_settings(result).items()))


def verdict_of(results: Sequence[Result]) -> str:
    """What is poor about the runs of one row: the line of the first such run, with their number."""
    poor = [result for result in results if result.verdict]
    if not poor or len(results) == 1:
        return poor[0].verdict if poor else ""
    seed = "" if poor[0].facts.seed is None else f", here seed {poor[0].facts.seed}"
    return f"{poor[0].verdict.removesuffix('.')} ({len(poor)} of {len(results)} seeds{seed})."
