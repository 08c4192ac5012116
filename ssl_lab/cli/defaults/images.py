"""Encoder, batch and length that suit images on a CPU.

Times are CPU seconds of one core of a server of 2023, where the small ConvNet takes 2 ms for a view of 32 pixels, forward and
backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults.facts import Choice, Facts
from ssl_lab.modalities.image import ImageSpec

_CONVNET = "ssl_lab.encoders.convnet.ConvNet"
_MOST_EPOCHS = 200
_FIRST_SIDE = 28  # pixels: the first stage of a ConvNet sees at least as many, which is all of MNIST's


def on_cpu(facts: Facts) -> bool:
    """Whether these are images that a CPU trains on."""
    return isinstance(facts.spec, ImageSpec) and facts.device == "cpu"


def convnet(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Widths of a ConvNet, and the stride of its first stage.

    Of 32 pixels and 256 views, a step of widths [64, 128, 256] takes 5 s, one of [16, 32, 64, 128] 0.25 s: 200 steps of
    SimCLR take a minute and pass raw pixels. Stages at full resolution cost most, so larger images enter by a stride.
    """
    if not on_cpu(facts) or cfg.encoder.get("_target_") != _CONVNET:
        return
    side = min(facts.spec.shape[1:])
    if side < 16:  # three stages as in simclr_digits
        yield Choice("encoder.widths=[32,64,128]", f"{side} pixels on a CPU")
        return
    yield Choice("encoder.widths=[16,32,64,128]", f"{side} pixels on a CPU")
    if first_stride(side) > 1:
        yield Choice(f"encoder.stride={first_stride(side)}", f"{side} pixels on a CPU")


def first_stride(side: int) -> int:
    """The largest power of two that leaves the first stage enough of an image."""
    return 2 ** max(0, int(math.log2(side / _FIRST_SIDE))) if side >= _FIRST_SIDE else 1


def length(facts: Facts, cfg: DictConfig, *, images: int, batch_size: int) -> Iterator[Choice]:
    """Batch size, and epochs that show so many images of 32 pixels in all, at least two and at most 200.

    Args:
        facts: Facts of data and machine.
        cfg: The settings.
        images: Images to see, of up to 32 pixels; small ones are seen as much more often as they are cheaper.
        batch_size: Samples of a step; small data get a smaller batch, for at least eight steps an epoch.
    """
    if not on_cpu(facts):
        return
    side = min(facts.spec.shape[1:])
    num_samples = max(1, facts.num_samples)
    size = min(num_samples, max(16, min(batch_size, 2 ** int(math.log2(max(num_samples / 8, 1))))))
    if cfg.data.get("batch_size") is not None:
        yield Choice(f"data.batch_size={size}", f"{facts.num_samples:,} images on a CPU")
    cheaper = max(1.0, (24 / side) ** 1.5)
    epochs = min(_MOST_EPOCHS, max(2, round(images * cheaper / num_samples)))
    yield Choice(f"trainer.max_epochs={epochs}", f"{facts.num_samples:,} images on a CPU")
