"""Run protocols on the capabilities of a method."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.devices import keep_random_state
from ssl_lab.evaluation.on_data import by_data, data_of, inner, named
from ssl_lab.evaluation.protocol import FeatureProtocol, LabelFreeProtocol, Protocol, check_data, extract, features_of
from ssl_lab.measured import rows_of


def evaluate(
    capabilities: Mapping[str, Callable[..., Any]],
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    *,
    device: torch.device,
    split: str = "test",
    max_train_samples: int | None = None,
) -> dict[str, float]:
    """Metrics of all protocols by name, the same on every rank; see :func:`measure`.

    Where protocols of other settings measure one metric, its names say how they differ.
    """
    found = measure(
        capabilities, protocols, datamodule, device=device, split=split, max_train_samples=max_train_samples
    )
    records = [
        {"settings": protocol.settings, "metrics": {"": metrics}}
        for protocol, metrics in zip(protocols, found, strict=True)
        if metrics
    ]
    (metrics,) = [row["metrics"] for row in rows_of(records)] or [{}]
    return metrics


def measure(
    capabilities: Mapping[str, Callable[..., Any]],
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    *,
    device: torch.device,
    split: str = "test",
    max_train_samples: int | None = None,
) -> list[dict[str, float]]:
    """Metrics of each protocol by name, the same on every rank; empty for one that is left out.

    Features are extracted once, by all ranks together; protocols that are not ``shared`` run on rank 0. The global
    random streams are left as they were.

    Args:
        capabilities: What protocols may call, ``Method.capabilities()`` or ``{"features": fn}``.
        protocols: What to run; those that need labels are left out with a warning on unlabelled data.
        datamodule: The data, but for protocols that have their own.
        device: Where to compute.
        split: What is scored.
        max_train_samples: Size of the fixed random part of a larger ``train`` split that probes are fitted to; None for
            all of it.

    Raises:
        ValueError: If a protocol needs what method or data do not offer.
    """
    for protocol in protocols:
        if protocol.needs not in capabilities:
            raise ValueError(
                f"{type(inner(protocol)).__name__} needs {protocol.needs!r}, but only {sorted(capabilities)} is offered. "
                "Choose another evaluation= or a method with this capability: methods with views offer view_features, "
                "generative methods sample, autoencoders with one code an image encode, those with a posterior elbo, "
                "log_weights and latents, ImageGPT code_losses, MLM predict_masked, CausalLM token_losses, SpanDenoising "
                "denoising_losses, fine-tuned ones what their task= predicts."
            )
        check_data(inner(protocol), data_of(protocol, datamodule))
    found: list[dict[str, float]] = [{} for _ in protocols]
    for data, places in by_data(protocols, datamodule):
        together = [inner(protocols[k]) for k in places]
        measured = _measure_on(data, capabilities, together, device, split, max_train_samples)
        for k, metrics in zip(places, measured, strict=True):
            found[k] = named(protocols[k], metrics)
    return distributed.broadcast_object(found)


def _measure_on(
    datamodule: DataModule,
    capabilities: Mapping[str, Callable[..., Any]],
    protocols: Sequence[Protocol],
    device: torch.device,
    split: str,
    max_train_samples: int | None,
) -> list[dict[str, float]]:
    """Metrics of each protocol on the same data, on the first rank at least."""
    left_out = [type(p).__name__ for p in protocols if p.needs_labels and not datamodule.labelled]
    if left_out:
        warnings.warn(f"{datamodule.title} has no labels, which {', '.join(left_out)} need: left out.", stacklevel=1)
    runnable = {k: p for k, p in enumerate(protocols) if datamodule.labelled or not p.needs_labels}
    probes = {k: p for k, p in runnable.items() if isinstance(p, FeatureProtocol)}
    label_free = {k: p for k, p in runnable.items() if isinstance(p, LabelFreeProtocol)}
    found: list[dict[str, float]] = [{} for _ in protocols]
    with keep_random_state(device):
        if probes or label_free:
            fn = capabilities["features"]
            scored = features_of(fn, datamodule, split, device=device)
            if probes:
                features = extract(
                    fn, datamodule, device=device, split=split, scored=scored, max_train_samples=max_train_samples
                )
            for k, probe in probes.items():
                found[k] = distributed.on_first_rank(partial(probe.score, features))
            for k, statistic in label_free.items():
                found[k] = distributed.on_first_rank(partial(statistic.score, scored[0]))
        for k, protocol in runnable.items():
            if not isinstance(protocol, FeatureProtocol | LabelFreeProtocol):
                run = partial(protocol.run, capabilities[protocol.needs], datamodule, device=device, split=split)
                found[k] = run() if protocol.shared else distributed.on_first_rank(run)
    return found
