"""A loss that is a mean over the tokens, or other targets, of the whole batch, wherever they are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.devices import narrow, wide


class TokenMean:
    r"""Divides summed losses by the number of predicted tokens in all ranks' batches, and in all accumulated ones.

    .. math:: \ell = \frac{\sum_{r, a} \ell_{r, a}}{\sum_{r, a} n_{r, a}}

    over ranks r and accumulated batches a, so the loss does not depend on how samples are spread over either. How many
    tokens the batches still to come hold is not known when the first is differentiated: each is divided by the number of
    the first, and :meth:`before_optimizer_step` puts the gradient right.
    """

    def __init__(self) -> None:
        self._counts: list[Tensor] = []  # of each batch since the last optimizer step

    def __call__(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Loss to differentiate, and loss to log.

        Args:
            total: Summed loss of this rank's tokens, scalar.
            count: Their number, scalar.

        Returns:
            This rank's part, whose mean over ranks has the gradient of the loss of the joined batch; and the mean loss of
            all ranks' tokens in this batch, without gradient.
        """
        everywhere = distributed.reduce_sum(count)
        self._counts.append(everywhere)
        mean = distributed.reduce_sum(total) / everywhere.clamp(min=1)
        return total * distributed.world_size() / self._counts[0].clamp(min=1), mean

    def before_optimizer_step(self, parameters: Iterable[nn.Parameter]) -> None:
        """Under accumulation, divide by the tokens of all batches instead of the first one's."""
        counts, self._counts = torch.stack(self._counts), []
        if len(counts) > 1:
            exact = wide(counts)
            scale = narrow(exact[0].clamp(min=1) * len(counts) / exact.sum().clamp(min=1), counts.device)
            for p in parameters:
                if p.grad is not None:
                    p.grad.mul_(scale)
