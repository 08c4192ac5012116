"""Judge a method beside baselines, and refuse what could not be judged before it is trained."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_lab.data.base import DataModule, has_split
from ssl_lab.engine.baselines import Baseline
from ssl_lab.evaluation.evaluate import measure
from ssl_lab.evaluation.on_data import OnData, check_told_apart, data_of, inner, measures
from ssl_lab.evaluation.protocol import Protocol, check_data
from ssl_lab.measured import Record, base_name, merged, records_of
from ssl_lab.methods.base import Method
from ssl_lab.metrics import check_declarations, descriptions, joined
from ssl_lab.runs.directory import METRICS, read_json, write_json
from ssl_lab.verdict import of_classes


def check_needs(method: Method, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """Refuse a protocol or data that cannot serve, before hours of training.

    Raises:
        ValueError: Naming who needs what, and what is offered; or a metric that could not be shown.
    """
    _check_columns(method, datamodule, datamodule.train_split)
    check_protocols(method, protocols, datamodule)


def check_protocols(method: Method, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """The same for a method that is judged and not trained, and so needs nothing to learn from.

    Raises:
        ValueError: As :func:`check_needs`.
    """
    offered = method.capabilities()
    for protocol in protocols:
        check_declarations(protocol.metrics, type(inner(protocol)).__name__)
        if protocol.needs not in offered:
            raise ValueError(
                f"{type(inner(protocol)).__name__} needs {protocol.needs!r}, but {type(method).__name__} offers "
                f"{sorted(offered)}. Choose another evaluation=."
            )
    check_told_apart(protocols)
    for protocol in protocols:
        if isinstance(protocol, OnData) and protocol.data is not None:
            _check_own_data(method, protocol, protocol.data)
    for protocol in protocols:
        part, data = inner(protocol), data_of(protocol, datamodule)
        _check_columns(part, data, "train")
        check_data(part, data)


def _check_columns(part: Method | Protocol, data: DataModule, split: str) -> None:
    """Refuse a split without the columns that a method or protocol needs.

    Raises:
        ValueError: Naming them.
    """
    columns = data.columns(split) if part.needs_columns else {}
    missing = [name for name in part.needs_columns if name not in columns]
    if missing:
        raise ValueError(
            f"{type(part).__name__} needs {', '.join(missing)}, but {type(data).__name__} has "
            f"{sorted(columns)}. Choose {part.columns_from.get(missing[-1], 'data that has it')}."
        )


def _check_own_data(method: Method, protocol: OnData, data: DataModule) -> None:
    """Refuse own data of a protocol that cannot be judged on.

    Raises:
        ValueError: If the encoder does not read them, they lack labels that are needed, or both splits that are scored.
    """
    asked = f"Cannot run {type(protocol.protocol).__name__} on {protocol.name} ({data.title})"
    spec = method.encoder.spec
    if not spec.accepts(data.spec):
        raise ValueError(
            f"{asked}: the encoder reads {spec}, found {data.spec}. Choose data of the same modality and number of channels, "
            "and texts by the same tokenizer."
        )
    if protocol.needs_labels and not data.labelled:
        raise ValueError(f"{asked}: it needs labels, and the data has none. Choose labelled data or another protocol.")
    if not (has_split(data, "val") or has_split(data, "test")):
        raise ValueError(f"{asked}: the data has neither a val nor a test split. Give it one of them.")


def _measured_on(metric: str, protocols: Sequence[Protocol], datamodule: DataModule) -> DataModule:
    """The data that a metric such as ``eval/knn/top1`` is measured on."""
    name = base_name(metric.partition("/")[2])
    return next((data_of(protocol, datamodule) for protocol in protocols if measures(protocol, name)), datamodule)


def check_is_measurable(objective: str, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """Refuse to compare runs by a metric of a val split that there is not.

    Raises:
        ValueError: Saying how there can be one.
    """
    data = _measured_on(objective, protocols, datamodule)
    if objective.startswith("eval/") and not has_split(data, "val"):
        raise ValueError(
            f"Cannot compare runs by objective={objective}: it is measured on the val split, but {data.title} has "
            "none. Set data.val_fraction=0.1, or objective=null."
        )


def check_is_measured(metric: str, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """Refuse to choose a checkpoint by what nothing measures; an unknown name is found at the first evaluation.

    Raises:
        ValueError: Naming what is measured.
    """
    asked = f"Cannot choose the checkpoint with the best {metric}: it"
    data = _measured_on(metric, protocols, datamodule)
    if not has_split(data, "val"):
        raise ValueError(
            f"{asked} needs a val split, but {type(data).__name__} has none. Give data with one, such as by "
            "data.val_fraction=0.1, or select=last."
        )
    if not protocols or not metric.startswith("eval/"):
        names = ", ".join(type(inner(protocol)).__name__ for protocol in protocols) or "nothing"
        raise ValueError(
            f"{asked} should be an eval/ metric of the val split, measured by {names}. Set objective and evaluation=, or "
            "select=last."
        )


def evaluate_with_baselines(
    method: Method,
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    baselines: Sequence[Baseline],
    *,
    device: torch.device,
    split: str = "test",
) -> list[dict[str, Any]]:
    """Evaluate a method and the baselines, one record for each protocol; see :mod:`ssl_lab.measured`."""
    found = measure(method.capabilities(), protocols, datamodule, device=device, split=split)
    if not any(found):
        return []
    weights = weights_digest(method)
    return [
        {
            "protocol": type(inner(protocol)).__name__,
            "settings": protocol.settings,
            "split": split,
            "data": data_facts(data_of(protocol, datamodule), split),
            "weights": weights,
            **({"signature": protocol.signature} if protocol.signature else {}),
            **_frequency(data_of(protocol, datamodule), split, metrics),
            "described": descriptions(protocol.metrics, metrics),
            "baselines": {baseline.name: baseline.kind for baseline in baselines if baseline.metrics[k]},
            "metrics": {
                **{baseline.name: dict(baseline.metrics[k]) for baseline in baselines if baseline.metrics[k]},
                method.result_name: metrics,
            },
        }
        for k, (protocol, metrics) in enumerate(zip(protocols, found, strict=True))
        if metrics
    ]


def _frequency(datamodule: DataModule, split: str, metrics: Iterable[str]) -> dict[str, float]:
    """The share of the most frequent class among the scored samples, where a metric counts samples of the right class."""
    columns = datamodule.columns(split)
    if "label" not in columns or not any(map(of_classes, metrics)):
        return {}
    labels = np.asarray(columns["label"])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not (labels >= 0).any():
        return {}
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    return {"frequency": float(counts.max() / counts.sum())}


def data_facts(datamodule: DataModule, split: str) -> dict[str, Any]:
    """Return facts that identify the data of a measurement: number and content of the fitted and scored samples."""
    spec, known = datamodule.spec, datamodule.fingerprint
    return {
        "title": datamodule.title,
        "modality": spec.modality,
        "as_recorded": spec.as_recorded,
        "shape": list(spec.shape),
        "train": known.get("train"),
        "scored": known.get(split),
    }


def fingerprints(datamodule: DataModule, protocols: Sequence[Protocol]) -> dict[str, str]:
    """Number of samples and digest of the content of each split of the run's data, and of other data that is judged on."""
    own = {p.name: p.data for p in protocols if isinstance(p, OnData) and p.data is not None}
    judged = {f"{name}/{split}": fact for name, data in own.items() for split, fact in data.fingerprint.items()}
    return {**datamodule.fingerprint, **judged}


def weights_digest(method: Method) -> str:
    """Hash of all that a checkpoint holds of a method, the same whether it is compiled or not."""
    digest = hashlib.sha256()
    for name, value in sorted(method.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name.replace('_orig_mod.', '')} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def write_descriptions(run_dir: Path, protocols: Sequence[Protocol], names: Iterable[str]) -> None:
    """Describe a run's metrics in its ``metrics.json``, beside those that it describes already.

    A file that cannot be written costs the descriptions, with a warning, and not the run.

    Args:
        run_dir: The run directory.
        protocols: What measured.
        names: Of what was measured, such as ``eval/knn/top1``.
    """
    plain = dict.fromkeys(base_name(name.partition("/")[2]) for name in names if name.startswith(("eval/", "test/")))
    path = run_dir / METRICS
    try:
        known = read_json(path)
    except ValueError:  # damaged: written anew
        known = {}
    found = joined([known, *(descriptions(protocol.metrics, plain) for protocol in protocols)])
    if found and found != known:
        try:
            write_json(path, found)
        except OSError as error:
            warnings.warn(f"{path} cannot be written ({error}): metrics are shown under their names.", stacklevel=1)


def join_records(path: Path, records: Sequence[Record]) -> None:
    """Join new results with those that an evaluation file holds."""
    write_json(path, merged(earlier_records(path), records))


def earlier_records(
    path: Path, settings: Mapping[str, Any] | None = None, *, weights: str | None = None, replaced: bool = True
) -> list[Record]:
    """Read an evaluation file, to be joined with new results; nothing, with a warning, if it cannot be read.

    Args:
        path: The file; none need be there.
        settings: What the run was evaluated by, for files that do not say it.
        weights: Digest of the weights that such files were written for.
        replaced: Whether the file will be written anew: one that cannot be read is moved aside before.
    """
    try:
        records = records_of(read_json(path), settings, weights=weights)
        if records:
            merged(records, [])  # refuses what is no record
        return records
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        fate = "is left out"
        if replaced:
            names = (path.with_name(f"{path.name}.damaged{end}") for end in ("", *map(str, range(2, 1000))))
            aside = next(name for name in names if not name.exists())
            path.replace(aside)
            fate = f"was moved to {aside.name}"
        warnings.warn(f"{path} cannot be read ({reason}) and {fate}.", stacklevel=1)
        return []
