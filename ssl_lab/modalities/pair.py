"""Images with captions: columns of images, and ``input_ids`` and ``attention_mask`` of one caption each.

``captions``: int64 (B, K, L), all texts of an image, in evaluation; those it lacks are padding from the first token on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch, Spec


@dataclass(frozen=True, kw_only=True)
class PairSpec(Spec):
    """Facts of a set of images with captions; features are those of the images.

    Attributes:
        image: Facts of the images.
        text: Facts of the captions.
    """

    modality: ClassVar[str] = "image_text"
    kind: ClassVar[str] = "images with captions"
    columns: ClassVar[tuple[str, ...]] = ("image", "input_ids", "attention_mask")
    raw_name: ClassVar[str] = ImageSpec.raw_name
    image: ImageSpec
    text: TextSpec

    @property
    def shape(self) -> tuple[int, ...]:
        """That of an image (C, H, W)."""
        return self.image.shape

    def raw(self, batch: Batch) -> Tensor:
        """Return the raw values of the images."""
        return self.image.raw(batch)

    def example(self, num_samples: int) -> dict[str, Tensor]:
        """An example batch of images alone, which is what encoders of features read."""
        return self.image.example(num_samples)

    def num_elements(self, batch: Batch) -> int:
        """Pixels and tokens."""
        return sum(part.num_elements(batch) for part in (self.image, self.text) if part.columns[0] in batch)

    def accepts(self, other: Spec) -> bool:
        """Return whether these are images with as many channels, with captions or without."""
        return self.image.accepts(other.image if isinstance(other, PairSpec) else other)

    def exported_inputs(self) -> dict[str, Any]:
        """Return the exported inputs of the images."""
        return self.image.exported_inputs()
