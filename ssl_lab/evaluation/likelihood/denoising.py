"""Evaluation of span denoising on unseen text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.likelihood.metrics import DENOISING_METRICS
from ssl_lab.evaluation.protocol import StreamingProtocol
from ssl_lab.types import Batch


class Denoising(StreamingProtocol):
    r"""Loss and perplexity of a denoising model on fixed spans.

    ``denoising/loss`` is the mean cross entropy in nats over all tokens that are to be written, sentinels included, each
    given those before it; ``denoising/perplexity`` is :math:`\exp` of it (cut at exp(50)). It compares models with one
    tokenizer that cut out spans alike, and is not the perplexity of a text. Sums are kept in fp64 over single tokens, so
    batch sizes do not matter.

    Args:
        seed: Seed of the spans, which depend on it, the sample and the position alone.

    References:
        Raffel et al., T5 (2020), section 3.1.4. arXiv:1910.10683
    """

    metrics = DENOISING_METRICS
    needs: ClassVar[str] = "denoising_losses"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def update(
        self, fn: Callable[[Batch, int], tuple[Tensor, Tensor]], batch: Batch, prepared: None
    ) -> dict[str, Tensor]:
        """Sum ``fn(batch, seed) -> (nats, written)``, both (B, L_out)."""
        losses, written = fn(batch, self.seed)
        return {"nats": wide(losses[written]).sum(), "written": written.sum()}

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """The mean over written tokens.

        Raises:
            ValueError: If there are none.
        """
        count = int(sums["written"])
        if count == 0:
            raise ValueError(
                f"Cannot score denoising on the {split} split: none of its texts has two tokens. Check the text column "
                "and the tokenizer."
            )
        loss = float(sums["nats"] / count)
        return {"denoising/loss": loss, "denoising/perplexity": math.exp(min(loss, 50.0))}
