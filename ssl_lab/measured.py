"""Records of measurements: results are kept apart by protocol, settings, data and weights, and never mixed.

An evaluation, as in ``evaluation.json``, holds one record for each protocol that was run::

    {"protocol": "KNN", "settings": {"num_neighbors": 20, "temperature": 0.07}, "split": "test",
     "data": {"title": "Digits", "modality": "image", "shape": [1, 8, 8], "train": "1294 1f...", "scored": "360 9a..."},
     "weights": "0f2c...",
     "baselines": {"raw pixels": "input"},
     "described": {"metrics": {"knn/top1": {"column": "kNN", ...}}, "tables": {"features": {"title": ..., ...}}},
     "metrics": {"raw pixels": {"knn/top1": 0.98}, "SimCLR encoder": {"knn/top1": 0.97}}}

``baselines`` says of which kind its other rows are: of the raw ``input``, or of the ``encoder`` before training. Beside the
records stand ``rows``, the records of the newest weights as tables show them. Where one metric was measured in several
ways, its name says how they differ: ``knn/top1[num_neighbors=1]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

_MAX_TEXT = 100  # characters of a setting

_RAW = ("raw", "word counts")
"""First words of names of raw-input rows, for records that do not say what their rows are."""
_ENDS = ("_std", "_real")  # what may follow the name of the metric that a number belongs to
_CLASSES = {
    "knn": "KNN",
    "linear": "LinearProbe",
    "few_label": "FewLabelProbe",
    "rankme": "RankMe",
    "uniformity": "Uniformity",
    "feature_std": "FeatureStd",
    "alignment": "Alignment",
    "lidar": "LiDAR",
    "masked": "MaskedPrediction",
    "pseudo_perplexity": "PseudoPerplexity",
    "language_modelling": "LanguageModelling",
    "denoising": "Denoising",
    "elbo": "LikelihoodBound",
    "nll": "ImportanceNLL",
    "codes": "CodePrediction",
    "fid": "FID",
    "mig": "MIG",
    "dci": "DCI",
    "sts": "STS",
    "retrieval": "Retrieval",
    "zero_shot": "ZeroShot",
    **dict.fromkeys(("frechet", "kid", "precision", "recall", "density", "coverage", "samples"), "SampleQuality"),
}
"""Protocols by the first part of their metrics' names, for files without records."""
_IN_NAMES = ("_target_", "labels_per_class", "encoder", "encoder_name", "weights")
"""Settings that say nothing which the metrics' names do not say."""


def base_name(name: str) -> str:
    """A metric's name without what tells its ways of measuring apart."""
    return re.sub(r"\[[^\]]*\]", "", name)


def way_of(name: str) -> str:
    """Return the part of a name that :func:`base_name` leaves out, ``num_neighbors=1``; empty if there is none."""
    match = re.search(r"\[([^\]]*)\]", name)
    return match[1] if match else ""


def shown_names(records: Sequence[Record]) -> list[dict[str, str]]:
    """Of each record, the name under which each of its metrics is shown beside those of the others.

    It is the plain name unless the records measured that metric in different ways. What a record does not say counts as no
    difference.
    """
    facts = [_facts(record) for record in records]
    having: dict[str, list[int]] = {}
    for k, record in enumerate(records):
        for name in dict.fromkeys(name for metrics in record["metrics"].values() for name in metrics):
            having.setdefault(name, []).append(k)
    found: list[dict[str, str]] = [{} for _ in records]
    for name, places in having.items():
        keys = dict.fromkeys(key for k in places for key in facts[k])
        differing = [key for key in keys if len({facts[k][key] for k in places if key in facts[k]}) > 1]
        for k in places:
            way = ",".join(f"{key}={facts[k].get(key, 'unknown')}" for key in differing)
            found[k][name] = with_way(name, way) if way else name
    return found


def with_way(name: str, way: str) -> str:
    """The name of a metric that was measured in a way, which stands before ``_std`` and such."""
    end = next((end for end in _ENDS if name.endswith(end)), "")
    return f"{name.removesuffix(end)}[{way}]{end}"


def _facts(record: Record) -> dict[str, str]:
    """All facts that distinguish measurements of one metric; token ids depend on the tokenizer and are left out."""
    data = record.get("data") or {}
    facts = {**record.get("settings", {}), "split": record.get("split"), "data": data.get("title")}
    if data.get("as_recorded", data.get("modality") != "text"):
        shape = data.get("shape")
        facts |= {
            "shape": None if shape is None else "x".join(map(str, shape)),
            "train_samples": data.get("train"),
            "scored_samples": data.get("scored"),
        }
    unsaid = {"split", "data", "shape", "train_samples", "scored_samples"}
    return {key: _text(value) for key, value in facts.items() if value is not None or key not in unsaid}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = re.sub(r"[\[\]]", "", text)
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT]}… {hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def rows_of(records: Sequence[Record], names: Sequence[Mapping[str, str]] | None = None) -> list[dict[str, Any]]:
    """Records as rows: baselines first, the judged model last, each with all of its metrics.

    Args:
        records: Of one evaluation.
        names: Of each record how its metrics are called; as :func:`shown_names` says if not given.
    """
    rows: dict[str, dict[str, Any]] = {}
    judged = list(records[-1]["metrics"])[-1] if records else ""
    for record, shown in zip(records, shown_names(records) if names is None else names, strict=True):
        for row, metrics in record["metrics"].items():
            rows.setdefault(row, {}).update({shown[name]: value for name, value in metrics.items()})
    order = [*(row for row in rows if row != judged), *([judged] if judged in rows else [])]
    return [{"name": row, "metrics": rows[row]} for row in order]


def of_input(records: Sequence[Record]) -> set[str]:
    """Names of the rows that are of the raw input, and so the same whatever the encoder."""
    kinds = {
        row: (record.get("baselines") or {}).get(row, "input" if row.startswith(_RAW) else "")
        for record in records
        for row in record["metrics"]
    }
    return {row for row, kind in kinds.items() if kind == "input"}


def current(evaluation: Mapping[str, Any]) -> list[Record]:
    """The records of the newest weights."""
    records = evaluation.get("measured") or []
    return [record for record in records if record.get("weights") == records[-1].get("weights")]


def merged(earlier: Iterable[Record], new: Sequence[Record]) -> dict[str, Any]:
    """Earlier and new records as an evaluation; a new one replaces the very same measurement alone."""
    found: dict[str, dict[str, Any]] = {}
    for record in [*earlier, *new]:
        key = json.dumps(
            [record.get(part) for part in ("protocol", "settings", "split", "data", "weights")],
            sort_keys=True,
            default=str,
        )
        known = found.pop(key, None)  # the newest last
        rows = {**(known or {"metrics": {}})["metrics"]}
        for row, metrics in record["metrics"].items():
            rows[row] = {**rows.pop(row, {}), **metrics}
        kinds = {**(known or {}).get("baselines", {}), **record.get("baselines", {})}
        found[key] = {**record, **({"baselines": kinds} if kinds else {}), "metrics": rows}
    records = list(found.values())
    own = [record for record in records if "on_data" not in record.get("settings", {})]
    last = (own or records or [{}])[-1]  # not what one protocol has of its own
    evaluation: dict[str, Any] = {"split": last.get("split"), "data": (last.get("data") or {}).get("title")}
    shown = current({"measured": records})
    signatures = {record["protocol"]: record["signature"] for record in shown if record.get("signature")}
    return {
        **evaluation,
        "rows": rows_of(shown),
        **({"signatures": signatures} if signatures else {}),
        "measured": records,
    }


def described_in(evaluation: Mapping[str, Any]) -> list[object]:
    """Return an evaluation's descriptions of its metrics, the newest last: parts for :func:`ssl_lab.metrics.joined`."""
    return [part.get("described") for part in [*(evaluation.get("measured") or []), evaluation]]


def records_of(
    evaluation: Mapping[str, Any], settings: Mapping[str, Any] | None, *, weights: str | None = None
) -> list[Record]:
    """The records of an evaluation; of one that has none, by the settings that its run was evaluated with.

    Args:
        evaluation: Contents of ``evaluation.json``.
        settings: Those of ``evaluation`` in the run's configuration, if they are known.
        weights: Digest of the weights that a file without records was written for.
    """
    if evaluation.get("measured"):
        return list(evaluation["measured"])
    rows = {row["name"]: row["metrics"] for row in evaluation.get("rows", [])}
    protocols = dict.fromkeys(_protocol(name) for metrics in rows.values() for name in metrics)
    return [
        {
            "protocol": protocol,
            "settings": _settings(protocol, settings or {}),
            "split": evaluation.get("split", "test"),
            "data": {"title": evaluation.get("data")},
            "weights": weights,
            "metrics": {
                row: {name: value for name, value in metrics.items() if _protocol(name) == protocol}
                for row, metrics in rows.items()
            },
        }
        for protocol in protocols
    ]


def settings_of_metric(name: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """The settings of the protocol that measured a metric and of its own data; None if it uses the run's data.

    Args:
        name: The metric.
        settings: The run's ``evaluation``.
    """
    begin, _, rest = name.partition("/")
    around = {key: node for key, node in settings.items() if str(_get(node, "_target_")).endswith(".OnData")}
    named = {key: node for key, node in around.items() if node.get("name") == begin}
    if named:
        found = _settings(_protocol(rest), {key: _get(node, "protocol") for key, node in named.items()})
        return found, next((node["data"] for node in named.values() if isinstance(_get(node, "data"), Mapping)), {})
    unnamed = {key: _get(node, "protocol") for key, node in around.items() if node.get("name") is None}
    return _settings(_protocol(name), {**settings, **dict.fromkeys(around), **unnamed}), None


def _get(node: Any, key: str) -> Any:
    return node.get(key) if isinstance(node, Mapping) else None


def _protocol(name: str) -> str:
    if re.match(r"elbo/(active_units|kl_dim_)", name):
        return "LatentUse"
    first = name.split("/")[0]
    return _CLASSES.get(first, first)


def _settings(protocol: str, nodes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, node in nodes.items():
        if isinstance(node, Mapping):
            target = str(node.get("_target_") or _CLASSES.get(key, key)).rpartition(".")[2]
            if target == protocol:
                found = {name: value for name, value in node.items() if name not in _IN_NAMES}
    k = found.get("num_neighbors")
    if isinstance(k, list | tuple) and k:
        found["num_neighbors"] = k[0]  # the names of the others say theirs
    return found
