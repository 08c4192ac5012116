"""Contract of every supervised task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.tasks.base import FineTuning
from ssl_lab.testing.methods import check_features, check_state, check_training, train
from ssl_lab.testing.protocols import check_protocol


def check_task(build: Callable[..., FineTuning], datamodule: DataModule, *protocols: Protocol) -> None:
    """Fine-tune for a few steps on the ``train`` split and check what holds for every task of the lab.

    It learns, its features fit every protocol, its checkpoints restore it, as those of every method
    (:func:`~ssl_lab.testing.methods.check_method`); what is frozen stays as it is (:func:`check_frozen`); and the protocols
    can judge its predictions (:func:`~ssl_lab.testing.protocols.check_protocol`).

    Args:
        build: Makes the task anew with further settings, such as
            ``lambda **settings: Classification(ConvNet(data.spec, widths=(8, 16)), AdamW(), **settings)``.
        datamodule: Small data with labels.
        protocols: Those that score it, such as ``ClassScores()``.

    Raises:
        AssertionError: Saying what does not hold.
    """
    labelled = copy.copy(datamodule)
    labelled.train_split = "train"
    for check in (check_training, check_features, check_state, check_frozen):
        check(build, labelled)
    method = build()
    assert method.uses_labels, f"{type(method).__name__} is a task, and says uses_labels = False."
    for protocol in protocols:
        offered = method.capabilities()
        assert protocol.needs in offered, (
            f"{type(protocol).__name__} needs {protocol.needs}, which {type(method).__name__} does not offer: see "
            "capabilities()."
        )
        check_protocol(protocol, offered[protocol.needs], labelled)


def check_frozen(build: Callable[..., FineTuning], datamodule: DataModule) -> None:
    """With ``freeze="encoder"`` the encoder stays as it is to the last bit, and something else learns.

    Raises:
        AssertionError: Saying what does not hold.
    """
    torch.manual_seed(0)
    method = build(freeze="encoder")
    before = _weights(method)
    train(method, datamodule, num_steps=2)
    changed = [key for key, weight in _weights(method).items() if not torch.equal(weight, before[key])]
    name = type(method).__name__
    frozen = [key for key in changed if key.startswith("encoder.")]
    assert not frozen, f"{name} changes {frozen[0]} of a frozen encoder."
    assert changed, f"{name} learns nothing where its encoder is frozen."


def _weights(method: FineTuning) -> dict[str, Any]:
    return {key: weight.detach().clone() for key, weight in method.state_dict().items()}
