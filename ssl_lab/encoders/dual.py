"""Two encoders side by side, for images with captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ssl_lab.layers import Layers
from ssl_lab.types import Batch, DataSpec, Encoder, FeatureMap


class DualEncoder(Encoder):
    """An image encoder and a text encoder, each built for its part of the data; features are those of the image.

    Args:
        spec: The images with captions it is built for.
        image: Builds the image encoder from a spec of images.
        text: Builds the text encoder from a spec of texts.

    Raises:
        ValueError: If the data are not images with captions.
    """

    def __init__(
        self, spec: DataSpec, *, image: Callable[[DataSpec], Encoder], text: Callable[[DataSpec], Encoder]
    ) -> None:
        super().__init__()
        if spec.modality != "image_text" or spec.text_length is None:
            raise ValueError(
                f"DualEncoder encodes images with captions, but the data is {spec.modality} of shape {spec.shape}. Choose "
                "data=image_text_pairs, or an encoder for this modality alone."
            )
        self.spec = spec
        self.image = image(replace(spec, modality="image", text_length=None))
        self.text = text(replace(spec, modality="text", shape=(spec.text_length,), text_length=None))
        self.embed_dim = self.image.embed_dim

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self.image.embed(batch)

    def maps(self, batch: Batch) -> tuple[FeatureMap, ...]:
        """Those of the image encoder."""
        return self.image.maps(batch)

    def layer_groups(self) -> Layers:
        """Those of the image encoder, whose features they make; the text encoder belongs to the rest."""
        layers = self.image.layer_groups()
        return replace(layers, rest=[*layers.rest, *self.text.parameters()])

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both parts, which are called one by one."""
        self.image.compile(*args, **kwargs)
        self.text.compile(*args, **kwargs)
