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
        stride: Of the first convolution, whose kernel has twice as many pixels and one more; above 1 large images become
            cheap.

    Raises:
        ValueError: If the image is too small for the number of stages, there is none, or the stride is below 1.
    """

    def __init__(self, spec: ImageSpec, *, widths: tuple[int, ...] = (64, 128, 256), stride: int = 1) -> None:
        if not widths:
            raise ValueError("Cannot build a ConvNet of encoder.widths=[]. Give the channels of at least one stage.")
        if stride < 1:
            raise ValueError(f"Cannot build a ConvNet of encoder.stride={stride}. Give 1 for small images, 2 or 4.")
        super().__init__(spec, embed_dim=widths[-1])
        if min(spec.shape[1:]) < stride * 2 ** (len(widths) - 1):
            raise ValueError(
                f"ConvNet with {len(widths)} stages needs images of at least {stride * 2 ** (len(widths) - 1)} pixels, "
                f"found {spec.shape[1]}x{spec.shape[2]}. Give encoder.widths fewer entries"
                f"{' or lower encoder.stride' if stride > 1 else ''}."
            )
        stages = [_stage(spec.shape[0], widths[0], stride=stride, kernel_size=2 * stride + 1)]
        stages += [_stage(w_in, w_out, stride=2) for w_in, w_out in pairwise(widths)]
        self.strides = tuple(stride * 2**level for level in range(len(widths)))
        self.stages = nn.Sequential(*stages)
        require_channels_last(self.stages)

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each stage."""
        return outputs(self.stages, x.contiguous(memory_format=torch.channels_last))


def _stage(w_in: int, w_out: int, *, stride: int, kernel_size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(w_in, w_out, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(w_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(w_out, w_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(w_out),
        nn.ReLU(inplace=True),
    )
