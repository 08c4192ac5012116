"""Contract of every method, whatever its objective."""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.engine.settled import hide_settled_warnings
from ssl_lab.methods.base import Method


def check_method(build: Callable[[], Method], datamodule: DataModule) -> None:
    """Train a method for a few steps and check what holds for every method of the lab.

    It learns (:func:`check_training`), its features fit every protocol (:func:`check_features`), it reads no labels unless
    it says so (:func:`check_labels`), and its checkpoints restore it (:func:`check_state`).

    Args:
        build: Makes the method anew, such as ``lambda: Rotation(ConvNet(data.spec, widths=(8, 16)), AdamW())``.
        datamodule: Small data of its modality, such as :class:`~ssl_lab.data.image.digits.Digits`.

    Raises:
        AssertionError: Saying what does not hold.
    """
    for check in (check_training, check_features, check_labels, check_state):
        check(build, datamodule)


def check_training(build: Callable[[], Method], datamodule: DataModule) -> None:
    """Four steps have a finite loss, logged by ``log_losses``, and move the encoder to other finite weights.

    Raises:
        AssertionError: Saying what does not hold.
    """
    method = _built(build)
    method.last_loss = torch.tensor(float("nan"))
    before = {key: weight.detach().clone() for key, weight in method.encoder.named_parameters()}
    train(method, datamodule)
    after = dict(method.encoder.named_parameters())  # not the buffers: batch statistics change without learning
    name = type(method).__name__
    assert torch.isfinite(method.last_loss), (
        f"{name} has no finite loss; training_step ends with self.log_losses(loss)."
    )
    assert any(not torch.equal(before[key], after[key]) for key in before), f"{name} leaves its encoder as it was."
    assert all(torch.isfinite(value).all() for value in after.values()), f"{name} makes weights that are not finite."


def check_features(build: Callable[[], Method], datamodule: DataModule) -> None:
    """Features are one row for each sample, repeatable, independent of the batch, and leave the mode of training alone.

    Raises:
        AssertionError: Saying what does not hold.
    """
    method = _built(build).train()
    name = type(method).__name__
    batch = next(iter(datamodule.eval_dataloader("val")))
    features = method.features(batch)
    shape = tuple(features.shape)
    assert len(shape) == 2, f"Features of {name} should be (B, D), found {shape}."
    assert len(features) == len(batch["index"]), (
        f"{name} has {len(features)} features of {len(batch['index'])} samples."
    )
    assert torch.equal(features, method.features(batch)), f"Features of {name} differ from one call to the next."
    few = method.features({key: column[:3] for key, column in batch.items()})
    torch.testing.assert_close(features[:3], few, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in method.modules()), f"Features of {name} change the mode of its modules."


def check_labels(build: Callable[[], Method], datamodule: DataModule) -> None:
    """Training ends with the same weights when all labels are 0, if and only if ``uses_labels`` is false.

    Nothing is checked on data without labels.

    Raises:
        AssertionError: Saying what does not hold.
    """
    if not datamodule.labelled:
        return
    weights = []
    for num_classes in (1, 2):
        method = _built(build)
        train(method, _with_classes(datamodule, num_classes), num_steps=2)
        weights.append(method.state_dict())
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert same != method.uses_labels, (
        f"{type(method).__name__} says uses_labels = {method.uses_labels}, but other labels give "
        f"{'the same' if same else 'other'} weights."
    )


def check_state(build: Callable[[], Method], datamodule: DataModule) -> None:
    """A trained state dict is plain tensors, and gives a new method the same features.

    Raises:
        AssertionError: Saying what does not hold.
    """
    method = _built(build)
    train(method, datamodule, num_steps=2)
    buffer = io.BytesIO()
    torch.save(method.state_dict(), buffer)
    buffer.seek(0)
    other = _built(build)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    batch = next(iter(datamodule.eval_dataloader("val")))
    same = torch.equal(method.features(batch), other.features(batch))
    assert same, f"A new {type(method).__name__} with the weights of a trained one has other features."


def train(method: Method, datamodule: DataModule, *, num_steps: int = 4, **settings: Any) -> None:
    """A few steps on the CPU that leave no files.

    Args:
        method: The method.
        datamodule: Its data.
        num_steps: Number of batches, at most an epoch.
        settings: Further settings of Lightning's trainer.
    """
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)  # without tips and notices
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            hide_settled_warnings()
            trainer = L.Trainer(
                accelerator="cpu",
                limit_train_batches=num_steps,
                default_root_dir=folder,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                **{"max_epochs": 1, **settings},
            )
            trainer.fit(method, datamodule=datamodule)
    finally:
        logger.setLevel(level)


def _built(build: Callable[[], Method]) -> Method:
    torch.manual_seed(0)
    return build()


def _with_classes(datamodule: DataModule, num_classes: int) -> DataModule:
    """The same data with labels of that many classes."""
    relabelled = copy.copy(datamodule)

    def columns(split: str) -> dict[str, Any]:
        rows = dict(datamodule.columns(split))
        label: Tensor = torch.as_tensor(rows["label"])
        return {**rows, "label": label % num_classes}

    relabelled.columns = columns  # type: ignore[method-assign]
    return relabelled
