"""VICReg: two views agree, every dimension varies, and no two dimensions vary together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.heads import Projector
from ssl_lab.losses.redundancy import vicreg
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.pretext.views import show_two_views
from ssl_lab.types import Batch, Encoder, Modality, Picture


@final
class VICReg(Method):
    r"""Variance, invariance and covariance regularisation, with statistics over the batch of all ranks.

    .. math:: \lambda\, s(Z^a, Z^b) + \mu\, v(Z^a, Z^b) + \nu\, c(Z^a, Z^b)

    Both views pass the networks as one batch and so share the statistics of batch normalisation; the published code
    passes one after the other.

    Args:
        encoder: Image encoder.
        optim: Optimizer and schedule.
        views: Draws two views of a batch, shape (2, B, C, H, W) in [0, 1].
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

    modality: ClassVar[Modality] = "image"
    coupled_by: ClassVar[str] = "variances and covariances are taken over the whole batch"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: nn.Module,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        hidden_dim: int = 2048,
        projection_dim: int = 2048,
    ) -> None:
        super().__init__(encoder, optim)
        weights = (invariance_weight, variance_weight, covariance_weight)
        if min(weights) < 0:
            raise ValueError(f"VICReg weighs invariance, variance and covariance by at least 0, found {weights}.")
        self.views = views
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, num_layers=3)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two views, one forward pass, and the three terms over the batch of all ranks."""
        views = self.views(batch["image"])
        h = self.encoder.embed({"image": views.flatten(0, 1)})
        z_a, z_b = self.projector(h).chunk(2)
        invariance, variance, covariance = vicreg(distributed.gather(z_a), distributed.gather(z_b))
        loss = (
            self.invariance_weight * invariance + self.variance_weight * variance + self.covariance_weight * covariance
        )
        return self.log_losses(loss, invariance=invariance, variance=variance, covariance=covariance)

    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """The images of a batch and two views of each."""
        return {"views": show_two_views(batch["image"], self.views)}
