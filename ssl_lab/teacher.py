"""Networks that follow another one: teachers by exponential moving average, and queues of their past features."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    r"""An exponential moving average of a student network, never trained itself.

    .. math:: \theta_t \leftarrow m\,\theta_t + (1 - m)\,\theta_s

    The momentum rises from ``momentum`` to ``final_momentum`` along half a cosine over all optimizer steps, as in BYOL;
    equal values keep it constant. Parameters are averaged; buffers are the teacher's own, so that its batch
    normalisation follows the batches it sees, as in the published code of BYOL and MoCo v3.

    Args:
        student: The network to follow; the teacher starts as its copy.
        momentum: m at the first step.
        final_momentum: m at the last step.

    Raises:
        ValueError: If a momentum is not in [0, 1] or falls.

    References:
        Tarvainen and Valpola, Mean teachers (2017). arXiv:1703.01780
        Grill et al., BYOL (2020), section 3.3. arXiv:2006.07733
    """

    def __init__(self, student: nn.Module, *, momentum: float, final_momentum: float = 1.0) -> None:
        super().__init__()
        if not 0 <= momentum <= final_momentum <= 1:
            raise ValueError(
                f"A teacher's momentum rises within [0, 1], found {momentum} and then {final_momentum}. Set "
                "0 <= momentum <= final_momentum <= 1."
            )
        self.network = deepcopy(student).requires_grad_(False)
        self.momentum = momentum
        self.final_momentum = final_momentum

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """Apply the averaged network to the inputs, without gradient."""
        return self.network(*inputs)

    def momentum_at(self, progress: float) -> float:
        """Momentum after a share of all optimizer steps."""
        return self.final_momentum - (self.final_momentum - self.momentum) * 0.5 * (1 + math.cos(math.pi * progress))

    @torch.no_grad()
    def follow(self, student: nn.Module, progress: float) -> None:
        """Move towards the student, after an optimizer step.

        Args:
            student: The network to follow.
            progress: Share of all optimizer steps that are done, in [0, 1].
        """
        own: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(own, list(student.parameters()), 1 - self.momentum_at(progress))


class FeatureQueue(nn.Module):
    """The last K features of former batches at unit length, first in, first out; part of the checkpoint.

    Push what all ranks have gathered, so that every rank holds the same queue.

    Args:
        size: Number of features K.
        dim: Their width D.

    Raises:
        ValueError: If the size is not positive.

    References:
        He et al., Momentum Contrast (2019), section 3.2. arXiv:1911.05722
        Dwibedi et al., With a Little Help from My Friends (2021), section 3.2. arXiv:2104.14548
    """

    features: Tensor
    num_pushed: Tensor

    def __init__(self, *, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"A queue holds at least one feature, found queue_size={size}.")
        # Its own generator: two queues, or a queue more, leave the initial weights as they were.
        start = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("features", nn.functional.normalize(start, dim=1))
        self.register_buffer("num_pushed", torch.tensor(0))
        self._was_full = False

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Replace the oldest features by new ones, shape (N, D); of more than K the last K are kept."""
        size = len(self.features)
        features = nn.functional.normalize(features.detach()[-size:].to(self.features.dtype), dim=1)
        places = (self.num_pushed + torch.arange(len(features), device=features.device)) % size
        self.features.index_copy_(0, places, features)
        self.num_pushed += len(features)

    def is_full(self) -> bool:
        """Return whether no random start is left; wait for the device until that is known."""
        self._was_full = self._was_full or bool(self.num_pushed >= len(self.features))
        return self._was_full

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        """The stored feature with the largest cosine to each row of x, both of shape (N, D)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.features[(x.to(self.features.dtype) @ self.features.T).argmax(1)]
