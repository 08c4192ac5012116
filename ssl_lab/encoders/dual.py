"""Two encoders side by side, for images with captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ssl_lab.layers import Layers
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch, Encoder, FeatureMap, Spec


class DualEncoder(Encoder):
    """An image encoder and a text encoder, each built for its part of the data; features are those of the image.

    Args:
        spec: The images with captions it is built for.
        image: Builds the image encoder from a spec of images.
        text: Builds the text encoder from a spec of texts.

    Raises:
        ValueError: If the data are not images with captions.
    """

    spec: PairSpec

    def __init__(
        self, spec: Spec, *, image: Callable[[ImageSpec], Encoder], text: Callable[[TextSpec], Encoder]
    ) -> None:
        super().__init__()
        self.spec = PairSpec.of(spec, type(self).__name__)
        self.image = image(self.spec.image)
        self.text = text(self.spec.text)
        self.embed_dim = self.image.embed_dim

    @property
    def tower(self) -> Encoder:
        """The image encoder."""
        return self.image

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self.image.embed(batch)

    def maps(self, batch: Batch) -> tuple[FeatureMap, ...]:
        """Return the feature maps of the image encoder."""
        return self.image.maps(batch)

    def layer_groups(self) -> Layers:
        """Return the layer groups of the image encoder, the source of features; the text encoder is in the rest."""
        layers = self.image.layer_groups()
        modules = [*layers.modules, *self.text.layer_groups().modules]
        return replace(layers, rest=[*layers.rest, *self.text.parameters()], modules=modules)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both parts, which are called one by one."""
        self.image.compile(*args, **kwargs)
        self.text.compile(*args, **kwargs)
