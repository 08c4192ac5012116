"""Base class of the protocols that evaluate representations and generators."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.samples.real_images import module_digest
from ssl_lab.metrics import Metric
from ssl_lab.types import Batch


class Protocol(ABC):
    """One way to judge a method.

    Attributes:
        needs: What it calls, a name in ``Method.capabilities()``: ``"features"``, ``"sample"`` and others.
        needs_labels: Whether the data must be labelled.
        needs_columns: Columns of the data that not all data have, and that it cannot do without.
        columns_from: What a message says to choose for data with such a column, by its name.
        needs_data: Methods of a data module that not all have, declared by a ``typing.Protocol``; for what no column holds,
            such as the answers that people gave.
        shared: Whether ranks share its work, so that all of them must run it; else it runs on the first.
        metrics: How its metrics are shown, by name; see :func:`ssl_lab.metrics.declared`. A metric that is left out is
            shown under its name.
        told_by_names: Settings that its metrics' names say, and that therefore tell no two measurements apart.
        signature: How its numbers are computed, for those who want to compare them with others'; empty if its
            documentation says it all.
    """

    needs: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    needs_columns: ClassVar[tuple[str, ...]] = ()
    columns_from: ClassVar[Mapping[str, str]] = {}
    needs_data: ClassVar[type | None] = None
    shared: ClassVar[bool] = False
    metrics: ClassVar[Mapping[str, Metric]] = {}
    told_by_names: ClassVar[tuple[str, ...]] = ()
    signature: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the arguments that distinguish its measurements from others of the same names, as plain data.

        An argument counts if the protocol keeps it in an attribute of the same name.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name not in self.told_by_names]
        return {name: plain(vars(self)[name]) for name in names if name in vars(self)}

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


def plain(value: Any) -> Any:
    """A setting as plain data; networks by a digest of their weights, other objects by the name of their class."""
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {module_digest(value)[:12]}"
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    known = value is None or isinstance(value, str | int | float | bool)
    return value if known else str(value) if isinstance(value, Path) else type(value).__name__


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

    def __post_init__(self) -> None:
        """Refuse features that nothing can be fitted to."""
        check_finite(self.train_x, "train")
        check_finite(self.test_x, "scored")
        if len(self.train_x) == 0:
            raise ValueError("Probes are fitted to labelled train samples, but there are none. Label some of them.")


class LabelFreeProtocol(Protocol):
    """A protocol that looks at the features of the scored split alone: nothing is fitted and no label is read."""

    needs: ClassVar[str] = "features"

    @abstractmethod
    def score(self, x: Tensor) -> dict[str, float]:
        """Metrics of features, fp32 (N, D)."""

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Extract features of the split and score them."""
        return self.score(features_of(fn, datamodule, split, device=device)[0])


class FeatureProtocol(Protocol):
    """A protocol that fits a classifier to frozen features; several of them share one extraction."""

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


class StreamingProtocol(Protocol):
    """A protocol that accumulates sums over batches, so that no split has to fit into memory.

    Ranks share the batches. Sums of whole numbers are exact, others are kept in fp64, so that neither batch sizes nor ranks
    matter beyond its last digits.
    """

    shared: ClassVar[bool] = True

    def prepare(self, fn: Callable[..., Any], datamodule: DataModule, *, device: torch.device) -> Any:
        """Compute the input of every :meth:`update`, such as frequencies of the train split; nothing by default."""
        return None

    @abstractmethod
    def update(self, fn: Callable[..., Any], batch: Batch, prepared: Any) -> Mapping[str, Tensor]:
        """Sums over a batch, by name; those of all batches have the same names and shapes, and are added.

        Args:
            fn: The capability named by ``needs``.
            batch: A batch of the scored split, on the device.
            prepared: What :meth:`prepare` returned.
        """

    @abstractmethod
    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Metrics of the sums over the whole split, fp64 or int64, on the CPU."""

    @torch.no_grad()
    def run(
        self, fn: Callable[..., Any], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Add up the batches of the split, each on one rank; an error on one rank is raised on all."""

        def own_sums() -> dict[str, Tensor]:
            prepared = self.prepare(fn, datamodule, device=device)
            sums: dict[str, Tensor] = {}
            for k, batch in enumerate(datamodule.eval_dataloader(split)):
                if k % distributed.world_size() == distributed.rank():
                    on_device = {name: column.to(device) for name, column in batch.items()}
                    sums = _added(sums, self.update(fn, on_device, prepared))
            return {name: part.cpu() for name, part in sums.items()}

        sums = reduce(_added, distributed.from_every_rank(own_sums))
        return self.compute(sums, datamodule, split)


def _added(sums: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add sums to others; a rank without a batch has none."""
    parts = {name: wide(part) if part.is_floating_point() else part.long() for name, part in parts.items()}
    return {**sums, **{name: sums[name] + part if name in sums else part for name, part in parts.items()}}


def extract(
    fn: Callable[[Batch], Tensor],
    datamodule: DataModule,
    *,
    device: torch.device,
    split: str = "test",
    scored: tuple[Tensor, Tensor] | None = None,
    max_train_samples: int | None = None,
) -> FeatureSet:
    """Features and labels of the ``train`` split and of ``split``; rows without a label are left out.

    Args:
        fn: Features (B, D) of a batch.
        datamodule: The data.
        device: Where to compute.
        split: What is scored.
        scored: What :func:`features_of` has found for ``split``, if it was asked before.
        max_train_samples: Size of the fixed random part of a larger ``train`` split that is taken.

    Raises:
        ValueError: If the data has no labels.
    """
    if not datamodule.labelled or datamodule.spec.num_classes is None:
        raise ValueError(
            f"{type(datamodule).__name__} has no labels, which probes need. Set its label column or folder."
        )
    train_x, train_y = features_of(fn, datamodule, "train", device=device, max_samples=max_train_samples)
    test_x, test_y = scored or features_of(fn, datamodule, split, device=device)
    return FeatureSet(
        train_x=train_x[train_y >= 0],
        train_y=train_y[train_y >= 0],
        test_x=test_x[test_y >= 0],
        test_y=test_y[test_y >= 0],
        num_classes=datamodule.spec.num_classes,
    )


def features_of(
    fn: Callable[[Batch], Tensor],
    datamodule: DataModule,
    split: str,
    *,
    device: torch.device,
    max_samples: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Features fp32 (N, D) and labels int64 (N,) of a split in its order; -1 marks a row without a label.

    A split is taken as a whole, or of a larger one than ``max_samples`` a fixed random part. Ranks share the work and all
    get the result.

    Raises:
        ValueError: If a feature is not finite.
    """

    def with_labels(batch: Batch) -> tuple[Tensor, Tensor]:
        features = fn(batch).float()
        return features, batch["label"] if "label" in batch else torch.full((len(features),), -1)

    features, labels = outputs_of(with_labels, datamodule, split, device=device, max_samples=max_samples)
    check_finite(features, split)
    return features.to(device), labels.to(device)


def check_data(protocol: Protocol, datamodule: DataModule) -> None:
    """Refuse data without what ``protocol.needs_data`` declares.

    Raises:
        ValueError: Naming what is missing.
    """
    needs = protocol.needs_data
    if needs is not None and not isinstance(datamodule, needs):
        missing = [name for name in vars(needs) if not name.startswith("_") and name not in dir(datamodule)]
        raise ValueError(
            f"{type(protocol).__name__} needs {needs.__name__} of {needs.__module__}, but {type(datamodule).__name__} lacks "
            f"{', '.join(missing)}. Choose data that has it, or give the data module such a method."
        )


def check_finite(outputs: Tensor, kind: str = "", *, what: str = "Features", use: str = "judged") -> None:
    """Refuse outputs (N, ...) of samples that hold NaN or infinity: comparisons with such values would pass for perfect.

    Args:
        outputs: What was computed of N samples.
        kind: Which samples the message names, such as their split.
        what: What the message calls the outputs.
        use: What the message says that they cannot be.

    Raises:
        ValueError: Saying of how many samples.
    """
    finite = outputs.isfinite()
    broken = len(outputs) - int((finite.flatten(1).all(1) if finite.ndim > 1 else finite).sum())
    check_none_broken(broken, len(outputs), kind, what=what, use=use)


def check_none_broken(
    broken: int, num: int, kind: str = "", *, what: str = "Features", unit: str = "samples", use: str = "judged"
) -> None:
    """The same of outputs that were counted elsewhere.

    Args:
        broken: How many hold NaN or infinity.
        num: How many there are.
        kind: Which of them the message names, such as their split.
        what: What the message calls the outputs.
        unit: What has one output.
        use: What the message says that they cannot be.

    Raises:
        ValueError: If any is broken.
    """
    if broken:
        raise ValueError(
            f"{what} of {broken} of {num} {kind + ' ' if kind else ''}{unit} are not finite and cannot be {use}. "
            "The training has diverged, or its data hold such values. Lower optim.lr, set trainer.gradient_clip_val=1.0, or "
            "start from an earlier checkpoint."
        )


def unit_rows(x: Tensor) -> Tensor:
    """Vectors (..., D) scaled to length 1, however long or short they are; zeros stay zeros.

    A power of two, which is exact, brings each to the order of 1 first: squares of fp32 overflow beyond 1e19, and
    ``F.normalize`` alone does not lengthen what is shorter than 1e-12.
    """
    return F.normalize(torch.ldexp(x, -order_of_two(x.abs().amax(-1, keepdim=True))), dim=-1)


def order_of_two(x: Tensor) -> Tensor:
    """The int n with x / 2^n in [1/2, 1), elementwise, within the range where 2^n and 2^-n are fp32 numbers; 0 for 0."""
    return torch.frexp(x).exponent.clamp(-126, 126)


@torch.no_grad()
def outputs_of(
    fn: Callable[[Batch], tuple[Tensor, ...]],
    datamodule: DataModule,
    split: str,
    *,
    device: torch.device,
    max_samples: int | None = None,
) -> tuple[Tensor, ...]:
    """Apply ``fn`` to the batches of a split and join its outputs along the rows in their order, on the CPU.

    A split is taken as a whole, or of a larger one than ``max_samples`` a fixed random part. Ranks share the work and all
    get the result; an error on one rank is raised on all.
    """

    def own_outputs() -> dict[int, tuple[Tensor, ...]]:
        found: dict[int, tuple[Tensor, ...]] = {}
        for k, batch in enumerate(datamodule.eval_dataloader(split, max_samples=max_samples)):
            if k % distributed.world_size() == distributed.rank():
                parts = fn({name: column.to(device) for name, column in batch.items()})
                found[k] = tuple(part.cpu() for part in parts)
        return found

    outputs: dict[int, tuple[Tensor, ...]] = {}
    for found in distributed.from_every_rank(own_outputs):
        outputs |= found
    return tuple(torch.cat(parts) for parts in zip(*(outputs[k] for k in sorted(outputs)), strict=True))
