"""The class of a generated image, told by a small network that learns it from the data's own labels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.data.base import DataModule
from ssl_lab.devices import CPU, keep_random_state
from ssl_lab.evaluation.samples.real_images import cached, content_digest, real_features
from ssl_lab.modalities.image import as_float
from ssl_lab.types import Batch

MAX_TRAIN = 20_000
"""More labelled train images than this are not learned from."""

_VERSION = 1  # of the network and its training
_MAX_SIDE = 32  # pixels; larger images are shrunk
_WIDTHS = (16, 32, 64)
_BATCH = 128
_NUM_EPOCHS, _MAX_STEPS = 30, 400  # seconds on a CPU core: 98 % on handwritten digits of 28 pixels
_ROWS_AT_ONCE = 500


class ClassJudge(nn.Module):
    """Three strided convolutions with batch normalisation, then a linear layer.

    Nearest neighbours on pixels give a class to every smear, as a blurred image lies near images of many classes. A trained
    network looks at strokes and edges, and its accuracy on real images is known.

    Args:
        shape: Channels, height and width (C, H, W) of the images, shrunk.
        num_classes: Number of classes.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, *size = shape
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
            size = [math.ceil(side / 2) for side in size]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(size), num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of shrunk images (B, C, H, W) in [0, 1]."""
        return self.layers(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Classes int64 (N,) of images (N, C, H, W), uint8 or in [0, 1]."""
        self.eval()
        return torch.cat([self(_shrunk({"image": part})).argmax(1) for part in images.split(_ROWS_AT_ONCE)])


def class_judge(datamodule: DataModule, *, num_classes: int, device: torch.device) -> ClassJudge | None:
    """The network, trained on the labelled part of ``train`` or read from the cache folder; None if nothing is labelled.

    Weights, order and number of steps are fixed, so that the same images get the same network.
    """
    facts = ["class judge", _VERSION, content_digest(datamodule, "train"), num_classes]

    def train() -> Mapping[str, Tensor]:
        found = real_features(_shrunk, datamodule, "train", device, most=MAX_TRAIN)
        known = found["y"] >= 0 if "y" in found else torch.zeros(len(found["x"]), dtype=torch.bool)
        return _trained(found["x"][known], found["y"][known], num_classes).state_dict() if bool(known.any()) else {}

    weights = cached(facts, train, device)
    if not weights:
        return None
    judge = _new(_shrunk(datamodule.spec.example(1)), num_classes).to(device)
    judge.load_state_dict(weights)
    return judge.eval()


def _trained(x: Tensor, y: Tensor, num_classes: int) -> ClassJudge:
    generator = torch.Generator().manual_seed(0)
    judge = _new(x, num_classes).to(x.device).train()
    num_steps = min(_MAX_STEPS, _NUM_EPOCHS * math.ceil(len(x) / _BATCH))
    optimizer = torch.optim.Adam(judge.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    with torch.inference_mode(False), torch.enable_grad():
        for _ in range(num_steps):
            rows = torch.randint(len(x), (min(_BATCH, max(2, len(x))),), generator=generator).to(x.device)
            loss = F.cross_entropy(judge(x[rows].clone()), y[rows].clone())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge


def _new(x: Tensor, num_classes: int) -> ClassJudge:
    """A network for images (B, C, H, W), always of the same weights."""
    with keep_random_state(CPU):
        torch.manual_seed(0)
        return ClassJudge(tuple(x.shape[1:]), num_classes)


def _shrunk(batch: Batch) -> Tensor:
    """Images (B, C, H, W) in [0, 1] whose sides have at most 32 pixels."""
    images = as_float(batch["image"])
    height, width = (min(side, _MAX_SIDE) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))
