"""What every image encoder has in common: modality check and pixel scaling."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ssl_lab.types import Batch, DataSpec, Encoder


def as_float(images: Tensor) -> Tensor:
    """Pixels as floats in [0, 1]: uint8 is divided by 255, floats pass through."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


class ImageEncoder(Encoder):
    """Normalises pixels with the data's channel statistics and embeds them.

    Args:
        spec: The image data it is built for.
        embed_dim: Width of the features.

    Raises:
        ValueError: If the data are not images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, *, embed_dim: int) -> None:
        super().__init__()
        if spec.modality != "image":
            raise ValueError(
                f"{type(self).__name__} encodes images, but the data is {spec.modality} of shape {spec.shape}. "
                "Choose an encoder for this modality, such as encoder=bert_mini for text or encoder=dual for image_text."
            )
        self.spec = spec
        self.embed_dim = embed_dim
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Features (B, embed_dim) of normalised images (B, C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, embed_dim) of images (B, C, H, W), uint8 or float in [0, 1]."""
        return self.encode((as_float(images) - self.mean) / self.std)

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self(batch["image"])  # type: ignore[no-any-return]


class SpatialEncoder(ImageEncoder):
    """An image encoder whose features are the mean over positions of a map.

    Attributes:
        map_size: Height and width of the map for images of the data's size.
    """

    map_size: tuple[int, int]

    @abstractmethod
    def encode_map(self, x: Tensor) -> Tensor:
        """Maps (B, embed_dim, h, w) of normalised images (B, C, H, W)."""

    def encode(self, x: Tensor) -> Tensor:
        """Average over positions of the map."""
        return self.encode_map(x).mean((2, 3))

    def forward(self, images: Tensor, *, as_map: bool = False) -> Tensor:
        """Features (B, embed_dim) of images (B, C, H, W), uint8 or float in [0, 1]; or the map (B, embed_dim, h, w)."""
        x = (as_float(images) - self.mean) / self.std
        return self.encode_map(x) if as_map else self.encode(x)

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """Features, of a map its average over positions."""
        return output.mean((2, 3)) if output.ndim == 4 else output


def require_channels_last(module: nn.Module) -> nn.Module:
    """The module with its kernels in channels-last layout, which convolutions prefer on CPU and GPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
