"""The shared vocabulary: batch, spec, encoder and picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from torch import Tensor, nn

from ssl_lab.captions import Caption
from ssl_lab.layers import Layers, repeated_blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Batch: TypeAlias = Mapping[str, Tensor]
"""Columns of equal length B. What a modality's columns hold is said by its :class:`Spec`; these are common to all:

``label``: int64 (B,), absent where the data has none. ``index``: int64 (B,), the row within its split.
``factors``: float32 (B, F), what samples were made from, where that is known; whole numbers are kinds.

Rows that differ in size are padded with zeros to the largest of the batch, and ``<name>_size``, int64 (B, F), holds the sizes
of each row along the F axes that differ: of boxes (B, K, 4) ``boxes_size`` (B, 1), of samples of audio (B, T) and frames of
clips (B, T, C, H, W) also (B, 1), of images (B, C, H, W) ``image_size`` (B, 2), their height and width.
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Values that a run directory keeps as JSON, with the name of their class as ``_target_``."""

    def to_json(self) -> dict[str, Any]:
        """Plain values of all fields."""
        return {
            "_target_": f"{type(self).__module__}.{type(self).__qualname__}",
            **{each.name: _plain(getattr(self, each.name)) for each in fields(self)},
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """From what :meth:`to_json` wrote, without ``_target_``; lists have become tuples, and objects their classes."""
        return cls(**facts)


def _plain(value: Any) -> Any:
    if isinstance(value, Facts):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def restored(node: Any) -> Any:
    """Restore the objects that :meth:`Facts.to_json` wrote; lists become tuples.

    It imports the modules that the values name: look at values from elsewhere first.
    """
    if isinstance(node, list):
        return tuple(map(restored, node))
    if not isinstance(node, dict):
        return node
    facts = {name: restored(value) for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return facts
    module, _, name = str(node["_target_"]).rpartition(".")
    kind = getattr(import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, Facts)):
        raise TypeError(f"{node['_target_']} holds no facts of data")
    return kind.from_json(facts)


class Target(Facts):
    """Learning target in one column of a batch, apart from the input."""


MOST_CLASSES = 10_000_000
"""More than any data set has: a head of more would fill the memory."""


@dataclass(frozen=True, kw_only=True)
class Classes(Target):
    """One of several classes for each sample, token or pixel, as its column has them.

    Attributes:
        names: Names of the classes in the order of their numbers; empty if unknown.
        number: How many there are; that of the names if not given.

    Raises:
        ValueError: If there is none, there are too many, or another number than names.
    """

    names: tuple[str, ...] = ()
    number: int = 0

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "number", self.number or len(self.names))
        if self.number < 1 or len(self.names) not in (0, self.number):
            raise ValueError(
                f"There are {self.number} classes with {len(self.names)} names. Give every class a name, or none."
            )
        if self.number > MOST_CLASSES:
            raise ValueError(f"Cannot tell {self.number:,} classes apart. Give at most {MOST_CLASSES:,}.")


@dataclass(frozen=True, kw_only=True)
class Spec(Facts, ABC):
    """Facts of a data set that are known before training; encoders and heads are sized from it.

    A modality is a subclass: what a sample is, how it looks without any learning, and which other data its encoders can read.
    Subclasses are frozen dataclasses whose values check themselves.

    Attributes:
        modality: Name of the modality, such as ``image``.
        kind: What messages call the samples, such as ``images``.
        columns: Columns of a batch that encoders read; the first one holds the elements that are counted.
        raw_name: What tables call the raw features.
        as_recorded: Whether samples are those of the data set, and not made of them by a part of the run, as ids by its
            tokenizer: then equal shape and content mean equal data.
        targets: What there is to learn, by the column that holds it.
    """

    modality: ClassVar[str]
    kind: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    raw_name: ClassVar[str]
    as_recorded: ClassVar[bool] = True
    targets: Mapping[str, Target] = field(default_factory=dict, hash=False)

    if TYPE_CHECKING:  # else a field of this name would stay abstract

        @property
        def shape(self) -> tuple[int, ...]:
            """Shape of one sample of the first column."""

    @abstractmethod
    def raw(self, batch: Batch) -> Tensor:
        """Features (B, D) of a batch without any learning, as a yardstick; of bounded width whatever the data."""

    @abstractmethod
    def example(self, num_samples: int) -> dict[str, Tensor]:
        """Random samples, always the same: what exports are traced and compared with."""

    def num_elements(self, batch: Batch) -> int:
        """Pixels, tokens or the like of a batch, padding included; known without a look at the device."""
        return batch[self.columns[0]].numel()

    def accepts(self, other: Spec) -> bool:
        """Return whether an encoder for this data can read the other."""
        return isinstance(other, type(self))

    def exported_inputs(self) -> dict[str, Any]:
        """Return the facts that a program needs about the inputs of an exported graph."""
        return {
            "inputs": {
                name: {"type": str(column.dtype).removeprefix("torch."), "shape": ["batch", *column.shape[1:]]}
                for name, column in self.example(1).items()
            }
        }

    def exported_sizes(self) -> dict[int, tuple[str, int, int]]:
        """Axes of the columns, beside the batch, that may vary in an exported graph: name, smallest and largest size."""
        return {}

    def __str__(self) -> str:
        """As in ``images of shape (3, 32, 32)``."""
        return f"{self.kind} of shape {self.shape}"

    @classmethod
    def of(cls, spec: Spec, user: str) -> Self:
        """The spec, if it is of this kind.

        Args:
            spec: The facts of some data.
            user: Who can use no others, for the message.

        Raises:
            ValueError: Naming both kinds.
        """
        if not isinstance(spec, cls):
            raise ValueError(
                f"{user} takes {cls.kind}, but the data is {spec}. Choose data=, encoder= and method= of one modality: "
                "see ssl-lab list."
            )
        return spec

    def classes(self, column: str = "label") -> Classes | None:
        """The classes that a column holds; None if it holds none."""
        found = self.targets.get(column)
        return found if isinstance(found, Classes) else None

    @property
    def num_classes(self) -> int | None:
        """Number of classes of samples; None without labels."""
        found = self.classes()
        return None if found is None else found.number

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of samples, in label order; empty if unknown."""
        found = self.classes()
        return () if found is None else found.names


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Features of a grid of places.

    Attributes:
        tensor: Features (B, D, h, w).
        stride: Pixels of the input from one place to the next. Where it does not divide the input's height, h is rounded
            as the network's padding has it: up in ResNet and ConvNet, down in others.
    """

    tensor: Tensor
    stride: int


class NotOfferedError(ValueError):
    """The encoder lacks what only some encoders offer, such as feature maps."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights of a published network.

    Attributes:
        tensors: By their published names.
        mean: Of each channel of the images that it was trained on, pixels scaled to [0, 1]; empty if unknown.
        std: Standard deviation of each channel, same scale.
    """

    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Encoder(nn.Module, ABC):
    """A network that turns a batch into one feature vector per sample.

    An encoder is built from a Spec and owns the scaling of its modality: it accepts images as uint8 or as
    floats in [0, 1] and normalises them itself.

    Attributes:
        spec: The data it was built for.
        embed_dim: Width D of its features.
        pretrained: Whether it starts from published weights instead of random ones.
        pooling: How features come from the places of an input: their ``mean``, a ``class`` token, or words of its own.
    """

    spec: Spec
    embed_dim: int
    pretrained: bool = False
    pooling: str = "mean"

    @property
    def title(self) -> str:
        """Return the name of the network in tables and pages."""
        return type(self).__name__

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Features of a batch, shape (B, embed_dim). What every protocol and every export uses."""

    @classmethod
    def settings_in_run(cls, run_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that rebuild the network of a run without its published weights.

        Args:
            run_dir: The run directory, with what :meth:`save_in_run` left.
            settings: The settings that the run was started with.
        """
        return {}

    def save_in_run(self, run_dir: Path) -> None:
        """Leave in a run directory what :meth:`settings_in_run` needs; nothing by default."""

    def converted(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """Tensors of a published network under this encoder's names, and the changes made, in words.

        Args:
            tensors: By their published names, without what stands before those of the network; others may be among them.

        Raises:
            ValueError: If they are of a network that this encoder cannot be.
        """
        return tensors, ()

    def published(self, name: str) -> Published:
        """Published weights of this architecture by name.

        Raises:
            ValueError: If there are none of this name, or they cannot be reached.
        """
        raise ValueError(
            f"Cannot start {self.title} from encoder.weights={name}: there is no such file, and this encoder has no "
            "published weights by name. Give a file or folder, or encoder.from_run=DIR."
        )

    @property
    def tower(self) -> Encoder:
        """The encoder that :meth:`embed` passes through: itself, or the one of several side by side."""
        return self

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """Features from the output of a forward pass; the same tensor unless the encoder pools afterwards."""
        return output

    def maps(self, batch: Batch) -> tuple[FeatureMap, ...]:
        """Feature maps of a batch, the finest first; the last is what :meth:`embed` pools.

        A class token that is pooled instead stands beside them.

        Raises:
            NotOfferedError: If the encoder has none.
        """
        raise NotOfferedError(
            f"Cannot take feature maps of a {type(self).__name__}: it gives one vector per sample. Choose encoder=convnet, "
            "a ResNet, a ViT or a model of timm, or give the encoder a method maps()."
        )

    def layer_groups(self) -> Layers:
        """Its parameters from input to output: embeddings, blocks, rest, each parameter in one of them.

        Layer decay, freezing, sharding and the recomputation of activations go by them. Blocks are found by their
        repetition; an encoder whose parameters are registered in another order than that of their use, or whose blocks
        are not alike, says itself what they are.
        """
        return Layers.around(self, repeated_blocks(self))


@dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """Images to look at, shape (R, N, C, H, W), values in [0, 1]; drawn as R rows of N images.

    Attributes:
        images: The pixels.
        row_names: One name per row, or empty.
        legend: What colours stand for: red, green and blue in [0, 1] by name.
        caption: Its title and explanation in report and dashboard; of None, the picture's name stands for them.
    """

    images: Tensor
    row_names: tuple[str, ...] = ()
    legend: Mapping[str, Sequence[float]] = field(default_factory=dict)
    caption: Caption | None = None


@dataclass(frozen=True, kw_only=True)
class MaskedText:
    """Masked sentences to look at, all int64 (B, L).

    Attributes:
        input_ids: What the model saw.
        labels: The original id at positions that were chosen for prediction, -100 elsewhere.
        guesses: The model's most probable id at every position.
        caption: As of an :class:`ImageGrid`.
    """

    input_ids: Tensor
    labels: Tensor
    guesses: Tensor
    caption: Caption | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Any figure to look at.

    Attributes:
        pixels: The figure, uint8 (H, W, 3), or (H, W, 4) with its opacity. Loggers show the latter on white, and reports
            on their own background, light or dark.
        caption: As of an :class:`ImageGrid`.
    """

    pixels: NDArray[np.uint8]
    caption: Caption | None = None


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The class of each pixel of one picture, to be kept as an indexed picture.

    Attributes:
        pixels: Number of the class, uint8 (H, W); 255 where none was predicted.
        colours: Red, green and blue of each of the 256 values, uint8 (256, 3).
    """

    pixels: NDArray[np.uint8]
    colours: NDArray[np.uint8]


Picture: TypeAlias = ImageGrid | MaskedText | Drawing
