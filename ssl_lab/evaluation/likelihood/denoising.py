"""How well spans that were cut out of unseen text are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.likelihood.metrics import DENOISING_METRICS
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.types import Batch


class Denoising(Protocol):
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

    @torch.no_grad()
    def run(
        self,
        fn: Callable[[Batch, int], tuple[Tensor, Tensor]],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Sum ``fn(batch, seed) -> (nats, written)``, both (B, L_out), over the split."""
        total, count = torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), device=device).long()
        for batch in datamodule.eval_dataloader(split):
            losses, written = fn({name: column.to(device) for name, column in batch.items()}, self.seed)
            total += losses[written].double().sum()
            count += written.sum()
        if count == 0:
            raise ValueError(
                f"Cannot score denoising on the {split} split: none of its texts has two tokens. Check the text column "
                "and the tokenizer."
            )
        loss = float(total / count)
        return {"denoising/loss": loss, "denoising/perplexity": math.exp(min(loss, 50.0))}
