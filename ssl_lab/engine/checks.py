"""Checks before a run's first step: refusals and warnings."""

from __future__ import annotations

import warnings

import lightning as L
from torch import nn

from ssl_lab.data.base import DataModule, has_split
from ssl_lab.data.loader import check_enough
from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.judge import check_is_measured, check_needs
from ssl_lab.evaluation.on_data import by_data
from ssl_lab.methods.base import Method


def check_start(
    method: Method, datamodule: DataModule, trainer: L.Trainer, evaluation: Evaluation, *, keep_best: str | None
) -> None:
    """Refuse a run that cannot be trained or judged, and warn of metrics that the data do not allow.

    Raises:
        ValueError: If a protocol needs what the method does not offer, a step has too few samples, or nothing measures
            ``keep_best``.
    """
    check_needs(method, evaluation.protocols, datamodule)
    check_samples(method, datamodule, trainer.world_size)
    if keep_best:
        check_is_measured(keep_best, evaluation.protocols, datamodule)
    if trainer.is_global_zero:
        for data, _ in by_data(evaluation.protocols, datamodule):
            if data is datamodule:
                _warn_of_missing_splits(data, evaluation.objective or "")
            elif not has_split(data, "val"):
                warnings.warn(
                    f"{data.title} has no val split: nothing is evaluated on it during training, but on its test split at "
                    "the end.",
                    stacklevel=1,
                )
            elif not has_split(data, "test"):
                warnings.warn(
                    f"{data.title} has no test split: it is evaluated during training, and not at the end.",
                    stacklevel=1,
                )


def _warn_of_missing_splits(datamodule: DataModule, objective: str) -> None:
    if not has_split(datamodule, "test"):
        warnings.warn(
            f"{datamodule.title} has no test split: the run is not judged after training. Give data with "
            "one, such as by data.test_fraction=0.1.",
            stacklevel=1,
        )
    if not has_split(datamodule, "val"):
        unmeasured = f", and the objective {objective} is not measured" if objective.startswith("eval/") else ""
        warnings.warn(
            f"{datamodule.title} has no val split: nothing is evaluated or drawn during training{unmeasured}. Set "
            "data.val_fraction=0.1 if you want that.",
            stacklevel=1,
        )


def check_samples(method: Method, datamodule: DataModule, num_ranks: int) -> None:
    """Refuse a batch size that the data or the objective cannot be trained with; cheap enough to ask twice.

    Raises:
        ValueError: If the training split gives no whole batch, or a step has too few samples.
    """
    num_samples = datamodule.batch_size * num_ranks
    check_batch(method, num_samples)
    num_train = len(next(iter(datamodule.columns(datamodule.train_split).values())))
    if num_train < num_samples:
        check_enough(num_train, datamodule.batch_size, num_ranks, cut=_cut_from(datamodule))


def _cut_from(datamodule: DataModule) -> str:
    """The splits that were cut from the training samples, with their numbers, as a message names them."""
    found = []
    for split in ("val", "test"):
        if has_split(datamodule, split):
            of, rows = datamodule.origin(split)
            found += [f"{split} ({len(rows):,})"] if of != split else []
    words = f", after {' and '.join(found)} {'were' if len(found) > 1 else 'was'} cut from the training samples"
    return words if found else ""


def check_batch(method: Method, num_samples: int) -> None:
    """Refuse a step of so many samples on all ranks if the objective or its batch statistics say nothing on them.

    Raises:
        ValueError: Naming what ties the samples of a batch together.
    """
    reason = method.coupled_by if num_samples < method.min_samples else ""
    if num_samples < 2 and any(isinstance(module, nn.BatchNorm1d) for module in method.modules()):
        reason = reason or "batch normalisation takes its statistics from the other samples"
    if reason:
        samples = "1 sample" if num_samples == 1 else f"{num_samples} samples"
        raise ValueError(
            f"Cannot train {type(method).__name__} on {samples} a step: {reason}. Set data.batch_size x devices to "
            f"{max(2, method.min_samples)} or more."
        )
