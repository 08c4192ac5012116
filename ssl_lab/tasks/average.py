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

    num_steps: Tensor

    def __init__(self, encoder: Encoder, head: nn.Module, *, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"Cannot average weights with method.ema_decay={decay}. Choose 0 for none, to below 1.")
        self.encoder = deepcopy(encoder).requires_grad_(False)
        self.head = deepcopy(head).requires_grad_(False)
        self.decay = decay
        self.register_buffer("num_steps", torch.tensor(0))

    @torch.no_grad()
    def follow(self, encoder: nn.Module, head: nn.Module) -> None:
        """Move towards the trained weights, after an optimizer step."""
        share = 1 - (1 + self.num_steps) / (10 + self.num_steps)
        share = share.clamp(min=1 - self.decay)
        for own, trained in ((self.encoder, encoder), (self.head, head)):
            for mine, theirs in zip(_tensors(own), _tensors(trained), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(theirs, share.to(mine.dtype))
                else:
                    mine.copy_(theirs)
        self.num_steps += 1


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
