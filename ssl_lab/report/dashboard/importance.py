"""Importance of a sweep's hyperparameters for a metric: permutation importance in a random forest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssl_lab.report.dashboard.index import Entry, choices_of

MIN_RUNS = 6
"""With fewer runs, importances are chance."""
_NUM_TREES, _NUM_REPEATS = 100, 5
_MAX_SETTINGS = (
    20  # that are shuffled: those of the largest impurity importance, where methods with many settings differ
)


def importances(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    """Measure how much worse a random forest predicts the metric when one setting is shuffled between runs.

    Args:
        entries: Runs that differ in some settings.
        metric: Name of the metric.

    Returns:
        ``num_runs`` with the metric, ``r2`` of the forest on runs that each tree has not seen, and ``settings``: for each
        setting that differs its ``share`` of the sum of importances and ``rho``, Spearman's correlation with the metric
        (None for what are no numbers), the largest share first. Without enough runs, ``settings`` is empty.
    """
    known = [entry for entry in entries if metric in entry.metrics]
    values = [entry.metrics[metric] for entry in known]
    coded = {key: _coded(texts) for key, texts in _differing(known).items()}
    coded = {key: column for key, column in coded.items() if len(set(column[0])) > 1}  # 1 and 1.0 are one value
    answer: dict[str, Any] = {"num_runs": len(known), "needed": MIN_RUNS, "r2": None, "settings": []}
    if len(known) < MIN_RUNS or not coded or len(set(values)) < 2:
        return answer

    import numpy as np
    from scipy.stats import spearmanr
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    forest = RandomForestRegressor(
        _NUM_TREES, oob_score=len(known) >= 2 * MIN_RUNS, min_samples_leaf=2, max_features=0.5, random_state=0
    )
    x = np.array([numbers for numbers, _ in coded.values()]).T
    forest.fit(x, values)
    if len(coded) > _MAX_SETTINGS:
        kept = set(np.argsort(-forest.feature_importances_)[:_MAX_SETTINGS])
        coded = {key: column for k, (key, column) in enumerate(coded.items()) if k in kept}
        x = x[:, sorted(kept)]
        forest.fit(x, values)
    found = permutation_importance(forest, x, values, n_repeats=_NUM_REPEATS, random_state=0).importances_mean
    found = np.maximum(found, 0.0)
    rows = []
    for key, column, importance in zip(coded, x.T, found, strict=True):
        rho = float(spearmanr(column, values).statistic) if coded[key][1] else None
        rows.append({"key": key, "share": float(importance / (found.sum() or 1.0)), "rho": rho})
    answer["r2"] = float(forest.oob_score_) if forest.oob_score else None
    answer["settings"] = sorted(rows, key=lambda row: -row["share"])
    return answer


def _differing(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Settings with two values or more; of those that always change together, as one that follows another, the first."""
    chosen = [choices_of(entry.settings) for entry in entries]
    columns: dict[str, list[str]] = {}
    seen: set[tuple[object, ...]] = set()
    for key in dict.fromkeys(key for settings in chosen for key in settings):
        texts = [settings.get(key, "–") for settings in chosen]
        place = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        # Where most values are drawn at random they change in every run, which does not make two settings one.
        repeats = 2 * len(place) <= len(texts)
        pattern = tuple(place[text] if repeats else text for text in texts)
        if len(place) > 1 and pattern not in seen:
            seen.add(pattern)
            columns[key] = texts
    return columns


def _coded(texts: Sequence[str]) -> tuple[list[float], bool]:
    """Values as numbers, and whether they were: others are numbered in the order of their names."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if numbers and all(map(math.isfinite, numbers)):
        return numbers, True
    names = sorted(set(texts))
    return [float(names.index(text)) for text in texts], False
