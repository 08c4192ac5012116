"""VICReg: two views agree, every dimension varies, and no two dimensions vary together."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from ssl_lab import distributed
from ssl_lab.heads import Projector
from ssl_lab.losses.redundancy import vicreg
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.types import Batch, Encoder


@final
class VICReg(JointEmbedding):
    r"""Variance, invariance and covariance regularisation, with statistics over the batch of all ranks.

    .. math:: \lambda\, s(Z^a, Z^b) + \mu\, v(Z^a, Z^b) + \nu\, c(Z^a, Z^b)

    Both views pass the networks as one batch and so share the statistics of batch normalisation; the published code
    passes one after the other.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        invariance_weight: Weight lambda of the squared distance between the views.
        variance_weight: Weight mu of the hinge that keeps every standard deviation above one.
        covariance_weight: Weight nu of the squared covariances.
        hidden_dim: Width of the projector's two hidden layers.
        projection_dim: Width of the projections z.

    Raises:
        ValueError: If a weight is negative.

    References:
        Bardes et al., VICReg: Variance-Invariance-Covariance Regularization (2021). arXiv:2105.04906
    """

    coupled_by: ClassVar[str] = "variances and covariances are taken over the whole batch"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        hidden_dim: int = 2048,
        projection_dim: int = 2048,
    ) -> None:
        super().__init__(encoder, optim, views)
        weights = (invariance_weight, variance_weight, covariance_weight)
        if min(weights) < 0:
            raise ValueError(f"VICReg weighs invariance, variance and covariance by at least 0, found {weights}.")
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, num_layers=3)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two views, one forward pass, and the three terms over the batch of all ranks."""
        z_a, z_b = self.projector(self.encoder.embed(self.views(batch))).chunk(2)
        invariance, variance, covariance = vicreg(distributed.gather(z_a), distributed.gather(z_b))
        loss = (
            self.invariance_weight * invariance + self.variance_weight * variance + self.covariance_weight * covariance
        )
        return self.log_losses(loss, invariance=invariance, variance=variance, covariance=covariance)
