"""Barlow Twins: two views correlate in every dimension, and no two dimensions correlate."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from ssl_lab import distributed
from ssl_lab.heads import Projector
from ssl_lab.losses.redundancy import barlow_twins
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.types import Batch, Encoder


@final
class BarlowTwins(JointEmbedding):
    r"""Redundancy reduction: the cross-correlation of two views over the batch of all ranks becomes the identity.

    .. math:: s \Big( \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2 \Big)

    Both views pass the networks as one batch and so share the statistics of batch normalisation; the published code
    passes one after the other.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        redundancy_weight: Weight of the redundancy term, lambda.
        loss_scale: Factor s of the whole loss, absent from the paper; the CIFAR recipes use 0.1.
        hidden_dim: Width of the projector's two hidden layers.
        projection_dim: Width of the projections z.

    Raises:
        ValueError: If a weight is not positive.

    References:
        Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction (2021). arXiv:2103.03230
    """

    coupled_by: ClassVar[str] = "correlations are taken over the whole batch"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        redundancy_weight: float = 0.0051,
        loss_scale: float = 1.0,
        hidden_dim: int = 2048,
        projection_dim: int = 2048,
    ) -> None:
        super().__init__(encoder, optim, views)
        if redundancy_weight <= 0 or loss_scale <= 0:
            raise ValueError(
                f"BarlowTwins needs redundancy_weight and loss_scale above 0, found {redundancy_weight} and {loss_scale}."
            )
        self.redundancy_weight = redundancy_weight
        self.loss_scale = loss_scale
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, num_layers=3)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two views, one forward pass, and their cross-correlation over the batch of all ranks."""
        z_a, z_b = self.projector(self.encoder.embed(self.views(batch))).chunk(2)
        invariance, redundancy = barlow_twins(distributed.gather(z_a), distributed.gather(z_b))
        loss = self.loss_scale * (invariance + self.redundancy_weight * redundancy)
        return self.log_losses(loss, invariance=invariance, redundancy=redundancy)
