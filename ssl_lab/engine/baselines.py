"""Baselines of a trained encoder: raw input and the encoder before training, measured once for the same data."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.data.base import DataModule, has_split
from ssl_lab.data.store import cache_folder, fingerprint
from ssl_lab.devices import device_name, keep_random_state
from ssl_lab.evaluation.evaluate import measure
from ssl_lab.evaluation.on_data import by_data, inner, named, on_split
from ssl_lab.evaluation.protocol import Protocol, plain
from ssl_lab.evaluation.samples.real_images import module_digest
from ssl_lab.limited import load_json
from ssl_lab.runs.directory import write_json
from ssl_lab.types import Batch, Encoder

_VERSION = 1
"""Changes whenever a protocol of ssl_lab would give other numbers of the same features."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Measurements of a baseline.

    Attributes:
        name: Name of its row.
        kind: Whether it is of the raw ``input``, or of the ``encoder`` before training.
        metrics: By each protocol; empty where it does not judge features.
    """

    name: str
    kind: Literal["input", "encoder"]
    metrics: Sequence[Mapping[str, float]]


def baseline_rows(
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    random_encoder: Encoder,
    *,
    device: torch.device,
    split: str = "test",
) -> list[Baseline]:
    """Raw input and a random encoder by each of the protocols; none if no protocol judges features.

    Results of ssl_lab's own protocols are kept in the cache folder and not computed again for the same content of the data,
    features, weights and settings.
    """

    def judging(data: DataModule, places: Sequence[int]) -> list[int]:
        asked = [(k, protocols[k]) for k in places]
        return [k for k, p in asked if p.needs == "features" and (data.labelled or not p.needs_labels)]

    groups = [(data, judging(data, places)) for data, places in by_data(protocols, datamodule)]
    groups = [(data, places) for data, places in groups if places]
    if not groups:
        return []
    found: dict[str, Baseline] = {}
    start_name = "initial encoder" if random_encoder.pretrained else "random encoder"
    digest = module_digest(random_encoder.to(device).eval())
    for data, of_features in groups:
        yardsticks: list[tuple[str, Literal["input", "encoder"], Callable[[Batch], Tensor], str]] = [
            (data.spec.raw_name, "input", data.spec.raw, ""),
            (start_name, "encoder", random_encoder.embed, digest),
        ]
        for name, kind, fn, weights in yardsticks:
            judged = [inner(protocols[k]) for k in of_features]
            measured = _kept_or_measured(fn, weights, judged, data, device, split)
            metrics = list(found[name].metrics) if name in found else [{} for _ in protocols]
            for k, row in zip(of_features, measured, strict=True):
                metrics[k] = named(protocols[k], row)
            found[name] = Baseline(name=name, kind=kind, metrics=metrics)
    return list(found.values())


def check_baselines(protocols: Sequence[Protocol], datamodule: DataModule, split: str = "test") -> None:
    """Refuse ``baselines=false`` where there would be none.

    Raises:
        ValueError: Saying why.
    """
    of_features = [protocol for protocol in protocols if protocol.needs == "features"]
    if not has_split(datamodule, split) and not on_split(of_features, datamodule, split):
        reason = f"{datamodule.title} has no {split} split to judge them on"
    elif not of_features:
        reason = "no protocol of evaluation= judges features"
    else:
        return
    raise ValueError(f"baselines=false has no effect: {reason}, so there are no baselines. Leave it out.")


def _kept_or_measured(
    fn: Callable[[Batch], Tensor],
    weights: str,
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    device: torch.device,
    split: str,
) -> list[dict[str, float]]:
    """Metrics by each protocol, those that are not kept measured together."""

    def look() -> list[tuple[Path | None, dict[str, float] | None]]:
        facts = [weights, *_facts(fn, datamodule, device, split)]
        paths = [_path(protocol, facts) for protocol in protocols]
        return [(path, None if path is None else _read(path)) for path in paths]

    kept = distributed.on_first_rank(look)
    missing = [protocol for protocol, (_, metrics) in zip(protocols, kept, strict=True) if metrics is None]
    found = iter(measure({"features": fn}, missing, datamodule, device=device, split=split) if missing else [])
    rows = [next(found) if metrics is None else metrics for _, metrics in kept]
    if distributed.rank() == 0:
        _keep([(path, row) for (path, metrics), row in zip(kept, rows, strict=True) if path and metrics is None])
    return rows


def _facts(fn: Callable[[Batch], Tensor], datamodule: DataModule, device: torch.device, split: str) -> list[Any]:
    """Return facts that identify the features of whole splits, among them their values on a few samples."""
    with torch.no_grad(), keep_random_state(device):
        (batch,) = datamodule.eval_dataloader(split, max_samples=min(32, datamodule.eval_batch_size))
        some = fn({name: column.to(device) for name, column in batch.items()}).float().cpu().contiguous()
    name = device_name(device) or device.type
    data = [datamodule.fingerprint.get(part) for part in ("train", split)]
    return [
        hashlib.sha256(some.numpy().tobytes()).hexdigest(),
        [data, datamodule.eval_batch_size, datamodule.spec.to_json()],
        [torch.__version__, name, torch.get_float32_matmul_precision()],
    ]


def _path(protocol: Protocol, facts: list[Any]) -> Path | None:
    """Where its results are kept; None for a protocol of the user's, whose code may change."""
    kind = type(protocol)
    if not kind.__module__.startswith("ssl_lab."):
        return None
    own = [_VERSION, kind.__module__, kind.__qualname__, plain(vars(protocol)), protocol.signature]
    return cache_folder() / "baselines" / f"{fingerprint([own, facts])}.json"


def _read(path: Path) -> dict[str, float] | None:
    """Kept metrics, to the last bit; None if there are none, with a warning if the file is damaged."""
    if not path.is_file():
        return None
    try:
        held = load_json(path)
        if held["digest"] != fingerprint(held["metrics"]):
            raise ValueError(f"{path} is not what was written")
        return {name: float.fromhex(value) for name, value in held["metrics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"Kept baselines cannot be read and are computed anew: {reason}", stacklevel=1)
        return None


def _keep(results: Sequence[tuple[Path, dict[str, float]]]) -> None:
    """Write each result atomically, so that trials running beside this one see all of it or nothing."""
    try:
        for path, row in results:
            metrics = {name: float(value).hex() for name, value in row.items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"metrics": metrics, "digest": fingerprint(metrics)})
    except OSError as error:
        warnings.warn(f"Baselines cannot be kept for the next run: {error}", stacklevel=1)
