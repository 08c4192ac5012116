"""A run on samples that a user gives, a part of them at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.evaluation.protocol import check_finite, outputs_of
from ssl_lab.methods.base import Method
from ssl_lab.predict.inputs import Given
from ssl_lab.tasks.base import FineTuning
from ssl_lab.types import Spec

_BATCHES_AT_ONCE = 2
_LEAST_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Found:
    """Results computed for some samples.

    Attributes:
        given: Those that could be read.
        results: One for each of them.
        unreadable: The others.
    """

    given: list[Given]
    results: list[Any]
    unreadable: list[Given]


def run_on(
    given: Sequence[Given], datamodule: DataModule, spec: Spec, compute: Callable[[DataModule], Sequence[Any]]
) -> Iterator[Found]:
    """Read the samples a part at a time, the next while ``compute`` works on one.

    Args:
        given: The samples.
        datamodule: Data like that of the run, none of which is read.
        spec: Facts of the data that the encoder is used on.
        compute: What is to be computed of data whose split :data:`GIVEN` holds the part: one result a sample.
    """
    at_once = max(_BATCHES_AT_ONCE * datamodule.eval_batch_size, _LEAST_AT_ONCE)
    parts = [given[start : start + at_once] for start in range(0, len(given), at_once)]

    def read(part: Sequence[Given]) -> tuple[DataModule, list[int]]:
        data = copy.copy(datamodule)
        return data, data.give([each.sample for each in part], spec)

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, parts[0])
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            data, kept = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            results = list(compute(data)) if kept else []
            assert len(results) == len(kept), "one result for each sample that could be read"
            wanted = set(kept)
            yield Found(
                given=[part[k] for k in kept],
                results=results,
                unreadable=[each for k, each in enumerate(part) if k not in wanted],
            )


def predicting(task: FineTuning, device: torch.device) -> Callable[[DataModule], Sequence[Any]]:
    """What :func:`run_on` computes to predict: a row a sample."""
    return lambda data: task.predict(data, device=device)


def embedding(method: Method, device: torch.device) -> Callable[[DataModule], Sequence[Any]]:
    """What :func:`run_on` computes for features: a vector fp32 (D,) a sample, of the method as it was judged."""

    def compute(data: DataModule) -> Sequence[Any]:
        (features,) = outputs_of(lambda batch: (method.features(batch).float(),), data, GIVEN, device=device)
        check_finite(features, use="written")
        return list(features.numpy())

    return compute


def task_of(method: Method, run: str) -> FineTuning:
    """The method, if it has a head of a task.

    Raises:
        ValueError: Saying how it gets one.
    """
    if isinstance(method, FineTuning):
        return method
    raise ValueError(
        f"Cannot predict with {run}: {type(method).__name__} has pretrained an encoder, which has no head of a task yet. "
        f"Fine-tune it on labels first: ssl-lab finetune run={run} data=NAME, and predict with the run that this writes. For "
        "features without labels use ssl-lab embed or ssl-lab neighbours."
    )
