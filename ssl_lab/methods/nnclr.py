"""NNCLR: contrast the nearest neighbours of a view in a queue with the other view."""

from __future__ import annotations

import math
from typing import ClassVar, final

from torch import Tensor

from ssl_lab import distributed
from ssl_lab.heads import Projector
from ssl_lab.losses.contrastive import in_batch_info_nce
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.teacher import FeatureQueue
from ssl_lab.types import Batch, Encoder


@final
class NNCLR(JointEmbedding):
    r"""Nearest-neighbour contrastive learning: the positive of a view is the other view's neighbour in a support set.

    .. math:: \mathcal{L} = \tfrac12 \ell(\mathrm{NN}(z_a), p_b) + \tfrac12 \ell(\mathrm{NN}(z_b), p_a), \qquad
              \ell(n, p) = -\frac{1}{B} \sum_i \log \frac{\exp(n_i \cdot p_i/\tau)}{\sum_j \exp(n_i \cdot p_j/\tau)}

    where z are projections, p their predictions and NN(z) is the most similar projection of former batches, all at unit
    length; negatives are the predictions of all ranks. The first view's projections enter the support set after the step.
    Views pass the networks one after the other, so that each is normalised by the statistics of its own kind.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        temperature: Softmax temperature.
        queue_size: Number of projections in the support set, over all ranks.
        hidden_dim: Width of the projector's two hidden layers.
        projection_dim: Width of the projections z.
        predictor_hidden_dim: Width of the predictor's hidden layer.

    References:
        Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
        Representations (2021). arXiv:2104.14548
    """

    coupled_by: ClassVar[str] = "the predictions of all other images of the batch are its negatives"
    min_samples: ClassVar[int] = 2
    _latest: Tensor  # the first view's projections of this step

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        temperature: float = 0.1,
        queue_size: int = 98304,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        predictor_hidden_dim: int = 4096,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.projector = Projector(
            encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim, num_layers=3, last_norm=True
        )
        self.predictor = Projector(projection_dim, hidden_dim=predictor_hidden_dim, out_dim=projection_dim)
        self.support_set = FeatureQueue(size=queue_size, dim=projection_dim)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The neighbours of each view against the predictions of the other, over the batch of all ranks."""
        z_a, z_b = (self.projector(self.encoder.embed(view)) for view in halves(self.views(batch)))
        p_a, p_b = (distributed.gather(self.predictor(z)) for z in (z_a, z_b))
        neighbours_a, neighbours_b = (distributed.gather(self.support_set.nearest(z)) for z in (z_a, z_b))
        loss_a = in_batch_info_nce(neighbours_a, p_b, temperature=self.temperature)
        loss_b = in_batch_info_nce(neighbours_b, p_a, temperature=self.temperature)
        self._latest = z_a.detach()
        return self.log_losses(0.5 * loss_a + 0.5 * loss_b)

    def after_step(self) -> None:
        """Push the first view's projections of all ranks."""
        self.support_set.push(distributed.gather(self._latest))
