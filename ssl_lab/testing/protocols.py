"""Contract of every protocol."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.metrics import declared


def check_protocol(protocol: Protocol, fn: Callable[..., Any], datamodule: DataModule) -> None:
    """Judge a function on the validation split and check what holds for every protocol of the lab.

    Metrics are finite, declared, repeatable, and shares or correlations where they are shown in percent. Random streams stay
    as they were, and settings are plain data.

    Args:
        protocol: The protocol.
        fn: What it judges: ``method.capabilities()[protocol.needs]``, or for features ``data.spec.raw``.
        datamodule: Small data that it can judge on.

    Raises:
        AssertionError: Saying what does not hold.
    """
    name = type(protocol).__name__
    before = _streams()
    metrics = protocol.run(fn, datamodule, device=torch.device("cpu"), split="val")
    assert _streams() == before, f"{name} draws from the global random streams: give it a generator of its own."
    assert metrics, f"{name} returns no metrics."
    for metric, value in metrics.items():
        of = metric.removesuffix("_std")
        shown = declared(protocol.metrics, of if of in metrics else metric)  # a deviation stands beside its mean
        assert shown is not None, f"{name} does not declare {metric} in metrics, so that no table can say what it is."
        assert isinstance(value, float) and math.isfinite(value), (
            f"{metric} of {name} should be finite, found {value!r}."
        )
        assert not shown.percent or -1 <= value <= 1, (
            f"{metric} of {name} is shown in percent, but {value} is none of [-1, 1]."
        )
    again = protocol.run(fn, datamodule, device=torch.device("cpu"), split="val")
    assert again == metrics, f"{name} gives other numbers the second time: {metrics} and {again}."
    json.dumps(protocol.settings)


def _streams() -> tuple[str, ...]:
    """The states of the global random streams in a comparable form."""
    return str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state().tolist())
