"""How a representation or a generator is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.types import Batch


class Protocol(ABC):
    """One way to judge what a method has learned.

    Attributes:
        needs: What it calls, a name in ``Method.capabilities()``: ``"features"``, ``"sample"`` and others.
        needs_labels: Whether the data must be labelled.
        needs_columns: Columns of the data that not all data have, and that it cannot do without.
    """

    needs: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    needs_columns: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(
        self, fn: Callable[..., Any], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Judge ``fn`` on a split.

        Args:
            fn: The capability named by ``needs``; for features any function from a batch to (B, D), so that an
                encoder, a timm model or raw pixels fit alike.
            datamodule: Where samples come from. Whatever is fitted is fitted on its ``train`` split.
            device: Where to compute.
            split: What is scored, ``"val"`` during training and ``"test"`` at the end.

        Returns:
            Metrics by name, ``{"knn/top1": 0.83}``.
        """


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features and labels of the fitted and of the scored split.

    Attributes:
        train_x: Features of the ``train`` split, fp32 (N, D).
        train_y: Its labels, int64 (N,).
        test_x: Features of the scored split, fp32 (M, D).
        test_y: Its labels, int64 (M,).
        num_classes: Number of classes.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int


class FeatureProtocol(Protocol):
    """A protocol that scores frozen features; several of them share one extraction."""

    needs: ClassVar[str] = "features"
    needs_labels: ClassVar[bool] = True

    @abstractmethod
    def score(self, features: FeatureSet) -> dict[str, float]:
        """Fit on the train features, score the test features."""

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Extract features of both splits and score them."""
        return self.score(extract(fn, datamodule, device=device, split=split))


def extract(
    fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
) -> FeatureSet:
    """Features of the ``train`` split and of ``split``; ranks share the work and all get the result.

    Raises:
        ValueError: If the data has no labels.
    """
    if not datamodule.labelled or datamodule.spec.num_classes is None:
        raise ValueError(
            f"{type(datamodule).__name__} has no labels, which probes need. Set its label column or folder."
        )
    train_x, train_y = _features_of(fn, datamodule, "train", device)
    test_x, test_y = _features_of(fn, datamodule, split, device)
    return FeatureSet(
        train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y, num_classes=datamodule.spec.num_classes
    )


@torch.no_grad()
def _features_of(
    fn: Callable[[Batch], Tensor], datamodule: DataModule, split: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    features: dict[int, Tensor] = {}
    labels: dict[int, Tensor] = {}
    for k, batch in enumerate(datamodule.eval_dataloader(split)):
        if k % distributed.world_size() == distributed.rank():
            features[k] = fn({name: column.to(device) for name, column in batch.items()}).float().cpu()
            labels[k] = batch["label"].cpu()
    for other in distributed.gather_objects((features, labels)):
        features |= other[0]
        labels |= other[1]
    order = sorted(features)
    x = torch.cat([features[k] for k in order]).to(device)
    y = torch.cat([labels[k] for k in order]).to(device)
    known = y >= 0  # -1 marks an unlabelled sample, as in Hugging Face data sets
    return x[known], y[known]
