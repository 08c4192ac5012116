"""MoCo v2: contrast with a queue of a slowly moving teacher's keys."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.heads import ProjectedEncoder
from ssl_lab.losses.contrastive import queue_info_nce
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.teacher import FeatureQueue, Teacher
from ssl_lab.types import Batch, Encoder


@final
class MoCoV2(JointEmbedding):
    r"""Momentum contrast: a query finds its key, the teacher's view of the same image, among the keys of former batches.

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i/\tau)}{\exp(q_i \cdot k_i/\tau) + \sum_j \exp(q_i \cdot n_j/\tau)}

    where q are the student's projections of one view, k the teacher's of the other and n the queue. The keys of a step
    enter the queue after it. There is no shuffling of batch normalisation: statistics are those of the batch of all ranks,
    which a permutation leaves as they are.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        temperature: Softmax temperature.
        queue_size: Number of keys in the queue, over all ranks.
        momentum: The teacher's momentum at the first step.
        final_momentum: The teacher's momentum at the last step, reached along half a cosine; the paper keeps it constant.
        symmetric: Whether each view is the query of the other (MoCo v2+); else the first is the query, as in the paper, at
            half the cost.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Width of queries and keys.

    References:
        Chen et al., Improved Baselines with Momentum Contrastive Learning (2020). arXiv:2003.04297
        He et al., Momentum Contrast for Unsupervised Visual Representation Learning (2019). arXiv:1911.05722
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        temperature: float = 0.2,
        queue_size: int = 65536,
        momentum: float = 0.999,
        final_momentum: float = 0.999,
        symmetric: bool = True,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.symmetric = symmetric
        self.projector = nn.Sequential(
            nn.Linear(encoder.embed_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, projection_dim)
        )
        self.teacher = Teacher(self.student(), momentum=momentum, final_momentum=final_momentum)
        self.queue = FeatureQueue(size=queue_size, dim=projection_dim)
        self._keys: list[Tensor] = []  # of each batch since the last optimizer step, shape (directions, B, D)

    def student(self) -> nn.Module:
        """Return the network that the teacher follows: encoder and projector."""
        return ProjectedEncoder(self.encoder, projector=self.projector)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Queries of a view against keys of the other and the queue."""
        view_a, view_b = halves(self.views(batch))
        pairs = [(view_a, view_b), (view_b, view_a)] if self.symmetric else [(view_a, view_b)]
        student = self.student()
        queries = [student(view) for view, _ in pairs]
        keys = [self.teacher(other) for _, other in pairs]
        losses = [
            queue_info_nce(q, k, self.queue.features, temperature=self.temperature)
            for q, k in zip(queries, keys, strict=True)
        ]
        self._keys.append(torch.stack(keys))
        return self.log_losses(torch.stack(losses).mean())

    def after_step(self) -> None:
        """Move the teacher; push the keys of all batches since the last step, from all ranks."""
        self.teacher.follow(self.student(), self.progress())
        for keys in torch.cat(self._keys, 1):
            self.queue.push(distributed.gather(keys))
        self._keys = []
