"""How well the codes of unseen images are predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.likelihood.metrics import CODES_METRICS
from ssl_lab.evaluation.protocol import Protocol, outputs_of
from ssl_lab.types import Batch


class CodePrediction(Protocol):
    r"""Nats per code, its exponential, and bits per pixel value that sending an image's codes takes.

    ``codes/nats`` is the mean cross entropy over all codes of the split, ``codes/perplexity`` its exponential (cut at
    exp(50)), at most the number of codes if nothing was learned. ``codes/bits_per_dim`` is :math:`\sum_t -\log_2
    p(c_t | c_{<t}) / D` for images of D pixels times channels: what the codes cost, without what decoding them leaves
    to say about the pixels.
    """

    metrics = CODES_METRICS
    needs: ClassVar[str] = "code_losses"
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Average ``fn(batch)``, nats (B, L), over the split."""
        (nats,) = outputs_of(lambda batch: (fn(batch),), datamodule, split, device=device)
        mean = float(nats.double().mean())
        bits = mean * nats.shape[1] / math.log(2)
        return {
            "codes/nats": mean,
            "codes/perplexity": math.exp(min(mean, 50.0)),
            "codes/bits_per_dim": bits / math.prod(datamodule.spec.shape),
        }
