"""A protocol with its own data or its own cadence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch

from ssl_lab.data.base import DataModule, has_split
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.metrics import Metric, declared

_FORWARDED = ("needs", "needs_labels", "needs_columns", "columns_from", "needs_data", "shared", "signature")


class OnData(Protocol):
    """Runs another protocol on its own data, at its own cadence.

    On data of its own all names of its metrics begin with ``name``: ``mnist/knn/top1``. They have a table of their own,
    whose title and columns name the data.

    Args:
        protocol: What measures.
        data: What it judges on; None for the run's data.
        name: Short name of ``data``: lower-case letters, digits and ``_``. Protocols on the same data may share it.
        every_n_epochs: Epochs between two evaluations during training, and one at the end; None for as often as the run says.

    Raises:
        ValueError: If neither data nor cadence is given, only one of data and name is, the name has other characters, the
            cadence is below 1, or the protocol is itself such a one.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        data: DataModule | None = None,
        name: str | None = None,
        every_n_epochs: int | None = None,
    ) -> None:
        described = f"OnData of {type(protocol).__name__}"
        if isinstance(protocol, OnData):
            raise ValueError(f"Cannot put one OnData into another: found {described}. Use one of them.")
        if data is None and every_n_epochs is None:
            raise ValueError(
                f"{described} has no effect: it has neither data nor every_n_epochs. Set one, or use the protocol."
            )
        if (data is None) != (name is None):
            found = f"name={name} without data" if data is None else f"data of {data.title} without a name"
            raise ValueError(
                f"{described} takes data with a name, which begins its metrics; found {found}. Set both or none."
            )
        if name is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"Cannot begin names of metrics with name={name!r}. Use lower-case letters, digits and _, and a letter first."
            )
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(
                f"Cannot use every_n_epochs={every_n_epochs} of {described}. Set it to 1 or more, or leave it out."
            )
        self.protocol = protocol
        self.data = data
        self.name = name
        self.every_n_epochs = every_n_epochs
        for attribute in _FORWARDED:
            setattr(self, attribute, getattr(protocol, attribute))
        self.metrics = (  # type: ignore[misc]
            protocol.metrics
            if data is None
            else {
                f"{name}/{pattern}": _on(data.title, str(name), pattern, of) for pattern, of in protocol.metrics.items()
            }
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the protocol, with the name of the data."""
        return {**self.protocol.settings, **({} if self.name is None else {"on_data": self.name})}

    def named(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics of the protocol under the names that they have here."""
        return {name if self.name is None else f"{self.name}/{name}": value for name, value in metrics.items()}

    def run(
        self, fn: Callable[..., Any], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Judge on its own data, or on the given one if it has none."""
        data = datamodule if self.data is None else self.data
        return self.named(self.protocol.run(fn, data, device=device, split=split))


def _on(title: str, name: str, pattern: str, metric: Metric) -> Metric:
    """Return the display of a metric, with the name of the data."""
    table = metric.table and replace(
        metric.table, key=f"{metric.table.key} {name}", title=f"{title}: {metric.table.title}"
    )
    if "*" in pattern or "#" in pattern:  # then column and panel are templates
        title = title.replace("{", "{{").replace("}", "}}")
    panel = f"{title}: {metric.panel or metric.column}"
    return replace(metric, column=f"{metric.column} on {title}", table=table, panel=panel)


def inner(protocol: Protocol) -> Protocol:
    """The protocol that measures."""
    return protocol.protocol if isinstance(protocol, OnData) else protocol


def data_of(protocol: Protocol, datamodule: DataModule) -> DataModule:
    """Return the data that a protocol evaluates on: its own, or the run's."""
    own = protocol.data if isinstance(protocol, OnData) else None
    return datamodule if own is None else own


def named(protocol: Protocol, metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename the metrics of :func:`inner` to the names that the protocol gives."""
    return protocol.named(metrics) if isinstance(protocol, OnData) else dict(metrics)


def by_data(protocols: Sequence[Protocol], datamodule: DataModule) -> list[tuple[DataModule, list[int]]]:
    """Places of protocols that judge on the same data, with the data, in their order."""
    groups: dict[int, tuple[DataModule, list[int]]] = {}
    for place, protocol in enumerate(protocols):
        data = data_of(protocol, datamodule)
        groups.setdefault(id(data), (data, []))[1].append(place)
    return list(groups.values())


def on_split(protocols: Sequence[Protocol], datamodule: DataModule, split: str) -> list[Protocol]:
    """The protocols whose data have such a split."""
    places = [k for data, of in by_data(protocols, datamodule) if has_split(data, split) for k in of]
    return [protocols[k] for k in sorted(places)]


def measures(protocol: Protocol, metric: str) -> bool:
    """Return whether a protocol declares a metric such as ``knn/top1``, or evaluates the data that its name starts with."""
    if declared(protocol.metrics, metric) is not None:
        return True
    return isinstance(protocol, OnData) and protocol.name is not None and metric.startswith(f"{protocol.name}/")


def check_told_apart(protocols: Sequence[Protocol]) -> None:
    """Refuse protocols that would give one name to metrics on different data, or to different ones at times.

    Raises:
        ValueError: Naming both.
    """
    for first, second in combinations(protocols, 2):
        (name, data, cadence), (other_name, other_data, other_cadence) = _asked(first), _asked(second)
        if name != other_name:
            continue
        if data is not None and other_data is not None and data is not other_data:
            raise ValueError(
                f"Cannot call two data sets {name}: found {data.title} and {other_data.title}. Give each a name= of its own."
            )
        same = type(inner(first)) is type(inner(second)) or first.metrics.keys() & second.metrics.keys()
        if same and cadence != other_cadence:
            found = " and ".join(
                "as often as the run says" if n is None else f"every {n} epochs" for n in (cadence, other_cadence)
            )
            names = " and ".join(type(inner(protocol)).__name__ for protocol in (first, second))
            raise ValueError(
                f"Cannot run {names} at two cadences, {found}: where both measure one metric its name says how they differ, "
                "and would do so now and then. Give both the same every_n_epochs."
            )


def _asked(protocol: Protocol) -> tuple[str | None, DataModule | None, int | None]:
    """The name, data and cadence set for a protocol."""
    return (
        (protocol.name, protocol.data, protocol.every_n_epochs) if isinstance(protocol, OnData) else (None, None, None)
    )
