"""A small convolutional network for small images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ssl_lab.encoders.image import SpatialEncoder, outputs, require_channels_last
from ssl_lab.modalities.image import ImageSpec


class ConvNet(SpatialEncoder):
    """Stages of two 3x3 convolutions with batch normalisation; every stage after the first halves the resolution.

    Args:
        spec: The image data it is built for.
        widths: Channels of each stage; the last is the embedding's width.

    Raises:
        ValueError: If the image is too small for the number of stages, or there is none.
    """

    def __init__(self, spec: ImageSpec, *, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        if not widths:
            raise ValueError("Cannot build a ConvNet of encoder.widths=[]. Give the channels of at least one stage.")
        super().__init__(spec, embed_dim=widths[-1])
        if min(spec.shape[1:]) < 2 ** (len(widths) - 1):
            raise ValueError(
                f"ConvNet with {len(widths)} stages needs images of at least {2 ** (len(widths) - 1)} pixels, found "
                f"{spec.shape[1]}x{spec.shape[2]}. Give encoder.widths fewer entries."
            )
        stages = [_stage(spec.shape[0], widths[0], stride=1)]
        stages += [_stage(w_in, w_out, stride=2) for w_in, w_out in pairwise(widths)]
        self.strides = tuple(2**level for level in range(len(widths)))
        self.stages = nn.Sequential(*stages)
        require_channels_last(self.stages)

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each stage."""
        return outputs(self.stages, x.contiguous(memory_format=torch.channels_last))


def _stage(w_in: int, w_out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(w_in, w_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(w_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(w_out, w_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(w_out),
        nn.ReLU(inplace=True),
    )
