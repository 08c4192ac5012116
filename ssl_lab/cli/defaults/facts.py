"""Facts of data and machine, and the settings that are chosen from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import DataModule, has_split
from ssl_lab.data.image.given import GivenImages
from ssl_lab.data.loader import BatchLoader
from ssl_lab.data.text.base import TextModule
from ssl_lab.devices import find_device
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Spec

_COMPARED = 1024
"""Images among which mirrored ones are looked for."""
_FEWEST = 16
"""Images, of which fewer say nothing."""
_THUMBNAIL = 16
"""Pixels of their sides."""
_AS_NEAR = 1.1
"""How much farther mirrored images may lie from the others than the images themselves. Measured: photographs 1.00, nuclei
1.00, blood cells 1.04; clothes, of which all shoes point left, 1.25; handwritten digits 1.35 (28 pixels) and 1.6 (8)."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts that settings are chosen from.

    Attributes:
        spec: Facts of the data, such as an :class:`~ssl_lab.modalities.image.ImageSpec` with its shape (C, H, W).
        num_samples: Samples of the split that is trained on.
        labelled: Whether the ``train`` split has labels.
        device: Type of the device that trains: ``cpu``, ``cuda`` or ``mps``.
        mirrored: Whether mirrored images are such images too, by what the data say or by :func:`are_mirrored`; None for
            other data.
        num_tokens: Tokens of that split without padding, by the tokenizer of the settings so far; None for other data.
    """

    spec: Spec
    num_samples: int
    labelled: bool
    device: str
    mirrored: bool | None = None
    num_tokens: int | None = None

    def __str__(self) -> str:
        """As in ``8,000 grey images of 28x28 pixels on a CPU``."""
        device = {"cpu": "a CPU", "cuda": "a GPU"}.get(self.device, self.device)
        return f"{self.num_samples:,} {_words(self.spec)} on {device}"


@dataclass(frozen=True)
class Choice:
    """A chosen setting.

    Attributes:
        override: The setting in Hydra's grammar, such as ``optim.lr=0.002`` or ``views@method.views=digits``.
        reason: The fact that it follows from, such as ``grey images``.
    """

    override: str
    reason: str

    @property
    def key(self) -> str:
        """What it sets, such as ``optim.lr``."""
        return self.override.partition("=")[0].lstrip("+~")


def listed(choices: Iterable[Choice]) -> str:
    """Choices with their reasons, those of one reason together: ``a=1, b=2 (grey images); c=3 (100 steps)``."""
    return "; ".join(
        f"{', '.join(each.override for each in same)} ({reason})"
        for reason, same in groupby(choices, key=lambda each: each.reason)
    )


def device_type(accelerator: str) -> str:
    """Type of the device that ``trainer.accelerator`` stands for; ``auto`` takes what the machine has."""
    return find_device().type if accelerator == "auto" else {"gpu": "cuda"}.get(accelerator, accelerator)


def facts_of(datamodule: DataModule, *, accelerator: str) -> Facts:
    """The facts of data, which are read for it.

    Args:
        datamodule: The data.
        accelerator: ``trainer.accelerator``; ``auto`` takes what the machine has.
    """
    columns = datamodule.columns(datamodule.train_split)
    is_image = isinstance(datamodule.spec, ImageSpec) and "image" in columns
    return Facts(
        spec=datamodule.spec,
        num_samples=len(next(iter(columns.values()))),
        labelled=has_split(datamodule, "train") and datamodule.labelled,
        device=device_type(accelerator),
        mirrored=_mirrored(datamodule) if is_image else None,
        num_tokens=_num_tokens(datamodule) if isinstance(datamodule.spec, TextSpec) else None,
    )


def _num_tokens(datamodule: DataModule) -> int | None:
    if not isinstance(datamodule, TextModule):
        return None
    split = datamodule.train_split
    ids = datamodule.columns(split)["input_ids"]
    return round(ids.numel() * (1 - datamodule.padding_share(split)))  # type: ignore[union-attr]


def _mirrored(datamodule: DataModule) -> bool | None:
    if isinstance(datamodule, GivenImages) and datamodule.mirrored is not None:
        return datamodule.mirrored
    num_samples = len(datamodule.columns(datamodule.train_split)["image"])
    if num_samples < _FEWEST:
        return None
    rows = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))[:_COMPARED].sort().values
    columns = {"image": datamodule.columns(datamodule.train_split)["image"]}
    loader = BatchLoader(columns, datamodule.as_batch, batch_size=64, rows=rows)
    side = min(_THUMBNAIL, *datamodule.spec.shape[1:])
    thumbnails = [F.interpolate(as_float(batch["image"]), (side, side), mode="area") for batch in loader]
    return are_mirrored(torch.cat(thumbnails))


def are_mirrored(images: Tensor) -> bool:
    """Return whether mirrored images lie about as near to other images as the images themselves do.

    Each image of one half, and its mirror image, is compared with all of the other half: where the mean distance to the
    nearest one hardly grows, a flip leads from one image of the data to another. Scans of digits and letters fail.

    Args:
        images: Images (N, C, H, W), at least 4.
    """
    one, other = images[::2].flatten(1), images[1::2].flatten(1)
    flipped = images[::2].flip(3).flatten(1)
    as_given, as_flipped = (torch.cdist(x, other).min(1).values.mean() for x in (one, flipped))
    return bool(as_flipped <= _AS_NEAR * as_given)


def _words(spec: Spec) -> str:
    if isinstance(spec, ImageSpec):
        channels, height, width = spec.shape
        kind = {1: "grey images", 3: "colour images"}.get(channels, f"images of {channels} channels")
        return f"{kind} of {height}x{width} pixels"
    return str(spec)
