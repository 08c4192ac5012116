"""Evaluation of the prediction of codes of unseen images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.likelihood.metrics import CODES_METRICS
from ssl_lab.evaluation.protocol import StreamingProtocol
from ssl_lab.types import Batch


class CodePrediction(StreamingProtocol):
    r"""Nats per code, its exponential, and bits per pixel value that sending an image's codes takes.

    ``codes/nats`` is the mean cross entropy over all codes of the split, ``codes/perplexity`` its exponential (cut at
    exp(50)), at most the number of codes if nothing was learned. ``codes/bits_per_dim`` is :math:`\sum_t -\log_2
    p(c_t | c_{<t}) / D` for images of D pixels times channels: what the codes cost, without what decoding them leaves
    to say about the pixels.
    """

    metrics = CODES_METRICS
    needs: ClassVar[str] = "code_losses"

    def update(self, fn: Callable[[Batch], Tensor], batch: Batch, prepared: None) -> dict[str, Tensor]:
        """Sum ``fn(batch)``, nats (B, L)."""
        nats = fn(batch)
        return {"nats": wide(nats).sum(), "codes": torch.tensor(nats.numel()), "images": torch.tensor(len(nats))}

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Means over codes and images."""
        mean = float(sums["nats"] / sums["codes"])
        bits = float(sums["nats"] / sums["images"]) / math.log(2)
        return {
            "codes/nats": mean,
            "codes/perplexity": math.exp(min(mean, 50.0)),
            "codes/bits_per_dim": bits / math.prod(datamodule.spec.shape),
        }
