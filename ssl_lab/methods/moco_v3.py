"""MoCo v3: contrast with a slowly moving teacher's keys of the batch, without a queue."""

from __future__ import annotations

import math
from typing import ClassVar, final

from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.heads import ProjectedEncoder, Projector
from ssl_lab.losses.contrastive import in_batch_info_nce
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.teacher import Teacher
from ssl_lab.types import Batch, Encoder


@final
class MoCoV3(JointEmbedding):
    r"""Momentum contrast in the batch: a prediction finds the teacher's projection of the same image's other view.

    .. math:: \mathcal{L} = 2\tau\,(\ell(q_a, k_b) + \ell(q_b, k_a)), \qquad
              \ell(q, k) = -\frac{1}{B} \sum_i \log \frac{\exp(q_i \cdot k_i/\tau)}{\sum_j \exp(q_i \cdot k_j/\tau)}

    where q are the student's predictions and k the teacher's projections of all ranks, both at unit length. Views pass the
    networks one after the other, so that each is normalised by the statistics of its own kind.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        temperature: Softmax temperature.
        momentum: The teacher's momentum at the first step.
        final_momentum: The teacher's momentum at the last step, reached along half a cosine.
        hidden_dim: Width of the projector's and the predictor's hidden layer.
        projection_dim: Width of queries and keys.

    References:
        Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers (2021). arXiv:2104.02057
    """

    coupled_by: ClassVar[str] = "the keys of all other images of the batch are its negatives"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        final_momentum: float = 1.0,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, last_norm=True)
        self.predictor = Projector(projection_dim, hidden_dim=hidden_dim, out_dim=projection_dim)
        self.teacher = Teacher(self.student(), momentum=momentum, final_momentum=final_momentum)

    def student(self) -> nn.Module:
        """Return the network that the teacher follows: encoder and projector."""
        return ProjectedEncoder(self.encoder, projector=self.projector)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Queries of each view against the keys of the other, over the batch of all ranks."""
        views = halves(self.views(batch))
        student = self.student()
        q_a, q_b = (distributed.gather(self.predictor(student(view))) for view in views)
        k_a, k_b = (distributed.gather(self.teacher(view)) for view in views)
        loss_a = in_batch_info_nce(q_a, k_b, temperature=self.temperature)
        loss_b = in_batch_info_nce(q_b, k_a, temperature=self.temperature)
        return self.log_losses(2 * self.temperature * (loss_a + loss_b))

    def after_step(self) -> None:
        """Move the teacher."""
        self.teacher.follow(self.student(), self.progress())
