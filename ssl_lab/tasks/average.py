"""The moving average of an encoder and its head."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ssl_lab.types import Encoder


class WeightAverage(nn.Module):
    r"""An exponential moving average of all weights, and of batch statistics, over the optimizer steps.

    .. math:: \bar\theta \leftarrow d_t\,\bar\theta + (1 - d_t)\,\theta, \qquad d_t = \min\left(d, \frac{1 + t}{10 + t}\right)

    at step t, counted from 0. The smaller decay of the first steps lets short trainings forget where they began, as in
    TensorFlow's average. Batch statistics are averaged alike; whole numbers are copied. It is part of the checkpoint.

    Args:
        encoder: The trained encoder, copied.
        head: The trained head, copied.
        decay: d.

    Raises:
        ValueError: If the decay is not in [0, 1).

    References:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging (1992). doi:10.1137/0330046
        Tarvainen and Valpola, Mean teachers (2017). arXiv:1703.01780
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"Cannot average weights with method.ema_decay={decay}. Choose 0 for none, to below 1.")
        self.encoder = deepcopy(encoder).requires_grad_(False)
        self.head = deepcopy(head).requires_grad_(False)
        self.decay = decay

    def decay_at(self, step: int) -> float:
        """Decay at an optimizer step, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def follow(self, encoder: nn.Module, head: nn.Module, step: int) -> None:
        """Move towards the trained weights, after an optimizer step.

        Args:
            encoder: The trained encoder.
            head: The trained head.
            step: Number of the optimizer step, counted from 0.
        """
        share = 1 - self.decay_at(step)
        for own, trained in ((self.encoder, encoder), (self.head, head)):
            weights: list[Tensor] = list(own.parameters())
            torch._foreach_lerp_(weights, list(trained.parameters()), share)
            for mine, theirs in zip(own.buffers(), trained.buffers(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(theirs, share)
                else:
                    mine.copy_(theirs)
