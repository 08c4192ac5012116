"""What every image encoder has in common: modality check and pixel scaling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
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

    Raises:
        ValueError: If the data are not images.
    """

    spec: ImageSpec
    strides: tuple[int, ...] = ()

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageSpec, *, embed_dim: int) -> None:
        super().__init__()
        self.spec = ImageSpec.of(spec, type(self).__name__)
        self.embed_dim = embed_dim
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

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
    """What each module of a chain returns."""
    found = []
    for module in modules:
        x = module(x)
        found.append(x)
    return tuple(found)


def require_channels_last(module: nn.Module) -> nn.Module:
    """The module with its kernels in channels-last layout, which convolutions prefer on CPU and GPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
