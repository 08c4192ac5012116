"""BYOL: predict a slowly moving teacher's projection of another view, without negatives."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from ssl_lab.heads import ProjectedEncoder, Projector
from ssl_lab.losses.regression import normalised_mse, spread
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.teacher import Teacher
from ssl_lab.types import Batch, Encoder


@final
class BYOL(JointEmbedding):
    r"""Bootstrap your own latent: a student predicts its own moving average's projection of another view.

    .. math:: \mathcal{L} = \lVert \overline{q(z_a)} - \overline{z'_b} \rVert^2
                          + \lVert \overline{q(z_b)} - \overline{z'_a} \rVert^2

    where z are the student's projections, z' the teacher's, q is the predictor and the bar scales to unit length. Views
    pass the networks one after the other, so that each is normalised by the statistics of its own kind.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        momentum: The teacher's momentum at the first step.
        final_momentum: The teacher's momentum at the last step, reached along half a cosine.
        hidden_dim: Width of the projector's and the predictor's hidden layer.
        projection_dim: Width of the projections z.
        last_norm: Whether batch normalisation ends the projector, which keeps short runs from collapsing; not in the paper.

    References:
        Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning (2020). arXiv:2006.07733
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        last_norm: bool = False,
    ) -> None:
        super().__init__(encoder, optim, views)
        self.projector = Projector(
            encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, last_norm=last_norm
        )
        self.predictor = Projector(projection_dim, hidden_dim=hidden_dim, out_dim=projection_dim)
        self.teacher = Teacher(self.student(), momentum=momentum, final_momentum=final_momentum)

    def student(self) -> nn.Module:
        """Return the network that the teacher follows: encoder and projector."""
        return ProjectedEncoder(self.encoder, projector=self.projector)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predict from each view the teacher's projection of the other."""
        views = halves(self.views(batch))
        student = self.student()
        p_a, p_b = (self.predictor(student(view)) for view in views)
        z_a, z_b = (self.teacher(view) for view in views)
        loss = normalised_mse(p_a, z_b) + normalised_mse(p_b, z_a)
        return self.log_losses(loss, spread=spread(z_a))

    def after_step(self) -> None:
        """Move the teacher."""
        self.teacher.follow(self.student(), self.progress())
