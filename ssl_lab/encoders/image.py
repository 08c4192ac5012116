"""Base class of image encoders: modality check and pixel scaling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.types import Batch, Encoder, FeatureMap


class ImageEncoder(Encoder):
    """Normalises pixels with the data's channel statistics and embeds them.

    Args:
        spec: The image data it is built for.
        embed_dim: Width of the features.

    Attributes:
        strides: Of its feature maps, the finest first; empty if it has none.
        statistics: Mean and standard deviation of each channel that its published weights were trained with; None without.

    Raises:
        ValueError: If the data are not images.
    """

    spec: ImageSpec
    strides: tuple[int, ...] = ()
    statistics: tuple[Sequence[float], Sequence[float]] | None = None

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageSpec, *, embed_dim: int) -> None:
        super().__init__()
        self.spec = ImageSpec.of(spec, type(self).__name__)
        self.embed_dim = embed_dim
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise pixels by other statistics than the data's, such as those that published weights were trained with.

        Grey images take the mean over the channels.

        Args:
            mean: Of each channel, pixels scaled to [0, 1].
            std: Standard deviation of each channel, same scale.

        Raises:
            ValueError: If the images have other channels.
        """
        channels = self.spec.shape[0]
        if channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        if not channels == len(mean) == len(std):
            raise ValueError(
                f"Cannot normalise images of {channels} channels by the statistics of {len(mean)}. Set "
                "encoder.normalise_by=data."
            )
        self.spec = replace(self.spec, mean=tuple(mean), std=tuple(std))
        self.mean.copy_(torch.tensor(self.spec.mean).view(-1, 1, 1))
        self.std.copy_(torch.tensor(self.spec.std).view(-1, 1, 1))

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Features (B, embed_dim) of normalised images (B, C, H, W)."""

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, D, h, w) of normalised images (B, C, H, W), one for each of ``strides``."""
        raise NotImplementedError

    def forward(self, images: Tensor, *, as_maps: bool = False) -> Any:
        """Features (B, embed_dim) of images (B, C, H, W), uint8 or float in [0, 1]; or the maps of :meth:`encode_maps`."""
        x = (as_float(images) - self.mean) / self.std
        return self.encode_maps(x) if as_maps else self.encode(x)

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self(batch["image"])  # type: ignore[no-any-return]

    def maps(self, batch: Batch) -> tuple[FeatureMap, ...]:
        """Feature maps of the batch's images, the finest first, the last being what :meth:`embed` pools.

        Raises:
            NotOfferedError: If the encoder has none.
        """
        if not self.strides:
            return super().maps(batch)
        found = self._grids(batch)
        return tuple(FeatureMap(tensor=x, stride=stride) for x, stride in zip(found, self.strides, strict=True))

    def _grids(self, batch: Batch) -> tuple[Tensor, ...]:
        return self(batch["image"], as_maps=True)  # type: ignore[no-any-return]


class SpatialEncoder(ImageEncoder):
    """An image encoder whose features are the mean over positions of its last map."""

    @abstractmethod
    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, D, h, w) of normalised images (B, C, H, W), one for each of ``strides``."""

    def encode(self, x: Tensor) -> Tensor:
        """Average over positions of the last map."""
        return self.encode_maps(x)[-1].mean((2, 3))

    def pool(self, output: Any, *inputs: Tensor) -> Tensor:
        """Features, of maps the average over positions of the last."""
        return output[-1].mean((2, 3)) if isinstance(output, tuple) else output


def outputs(modules: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """Return the output of each module of a chain."""
    found = []
    for module in modules:
        x = module(x)
        found.append(x)
    return tuple(found)


def require_channels_last(module: nn.Module) -> nn.Module:
    """The module with its kernels in channels-last layout, which convolutions prefer on CPU and GPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def with_channels(
    tensors: Mapping[str, Tensor], name: str, channels: int
) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """Adapt a first convolution (D, C, h, w) to images with other channels; returns tensors and a note.

    Of grey images its kernels are summed over the channels, as timm does.
    """
    kernel = tensors.get(name)
    if kernel is None or kernel.ndim != 4 or channels != 1 or kernel.shape[1] == 1:
        return tensors, ()
    return {**tensors, name: kernel.sum(1, keepdim=True)}, (f"{name} summed over its {kernel.shape[1]} channels",)
