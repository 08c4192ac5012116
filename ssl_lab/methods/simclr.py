"""SimCLR: agreement between two views of an image against all others in the batch."""

from __future__ import annotations

import math
from typing import ClassVar, final

from torch import Tensor

from ssl_lab import distributed
from ssl_lab.heads import Projector
from ssl_lab.losses.contrastive import nt_xent
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.types import Batch, Encoder


@final
class SimCLR(JointEmbedding):
    """Simple contrastive learning of representations; negatives are all other images of all ranks.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        temperature: Softmax temperature of NT-Xent.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Width of the projections z.
        last_norm: Whether the projector ends in batch normalisation, without scale and shift.

    References:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (2020). arXiv:2002.05709
    """

    coupled_by: ClassVar[str] = "all other images of the batch are its negatives"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        temperature: float = 0.5,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        last_norm: bool = False,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.projector = Projector(
            encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, last_norm=last_norm
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two views, one forward pass, NT-Xent over the batch of all ranks."""
        z_a, z_b = self.projector(self.encoder.embed(self.views(batch))).chunk(2)
        loss = nt_xent(distributed.gather(z_a), distributed.gather(z_b), temperature=self.temperature)
        return self.log_losses(loss)
