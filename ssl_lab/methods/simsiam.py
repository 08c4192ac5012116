"""SimSiam: predict the projection of another view, with nothing but a stopped gradient against collapse."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from ssl_lab.heads import ProjectedEncoder, Projector
from ssl_lab.losses.regression import negative_cosine, spread
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.types import Batch, Encoder


@final
class SimSiam(JointEmbedding):
    r"""Simple Siamese representation learning: one network, no negatives, no teacher.

    .. math:: \mathcal{L} = \tfrac12 \mathcal{D}(p_a, \mathrm{stopgrad}(z_b))
                          + \tfrac12 \mathcal{D}(p_b, \mathrm{stopgrad}(z_a))

    where z are projections, p their predictions and D is the negative cosine. Views pass the networks one after the
    other, so that each is normalised by the statistics of its own batch. The predictor's learning rate does not decay.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        hidden_dim: Width of the projector's two hidden layers.
        projection_dim: Width of the projections z.
        predictor_hidden_dim: Width of the predictor's hidden layer, a bottleneck.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020). arXiv:2011.10566
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        hidden_dim: int = 2048,
        projection_dim: int = 2048,
        predictor_hidden_dim: int = 512,
    ) -> None:
        super().__init__(encoder, optim, views)
        self.projector = Projector(
            encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, num_layers=3, last_norm=True
        )
        self.predictor = Projector(projection_dim, hidden_dim=predictor_hidden_dim, out_dim=projection_dim)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predict from each view the projection of the other, which gets no gradient."""
        z_a, z_b = (self.projector(self.encoder.embed(view)) for view in halves(self.views(batch)))
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        loss = 0.5 * negative_cosine(p_a, z_b.detach()) + 0.5 * negative_cosine(p_b, z_a.detach())
        return self.log_losses(loss, spread=spread(z_a))

    def configure_optimizers(self) -> Any:
        """One optimizer and schedule; the predictor keeps its learning rate."""
        optimizer, schedule = self.optim.build(
            ProjectedEncoder(self.encoder, projector=self.projector),
            total_steps=self.total_steps,
            constant=self.predictor,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
