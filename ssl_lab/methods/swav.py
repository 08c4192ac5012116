"""SwAV: every view predicts to which prototypes another view of its image was assigned."""

from __future__ import annotations

import math
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lab import distributed
from ssl_lab.heads import Projector, Prototypes
from ssl_lab.losses.clustering import sinkhorn_knopp, swapped_prediction
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.teacher import FeatureQueue
from ssl_lab.types import Batch, Encoder


@final
class SwAV(JointEmbedding):
    """Swapped assignments between views, which are balanced over the prototypes and the batch of all ranks.

    Where a batch is smaller than the number of prototypes, a queue of former projections joins it when assignments are
    balanced. Prototypes are normalised in the forward pass and scaled to length 1 again after each step; the published code
    scales them before each forward pass and lets the gradient change their length.

    Args:
        encoder: Encoder of the samples that takes views of any size.
        optim: Optimizer and schedule.
        views: Draws two global views of a batch and smaller, local ones.
        num_prototypes: Number of prototypes K.
        temperature: Softmax temperature of the predictions.
        epsilon: Entropy regularisation of the assignments.
        num_sinkhorn_iterations: Iterations of Sinkhorn-Knopp.
        queue_size: Former projections of each global view, over all ranks; 0 for none.
        queue_start_fraction: Share of all steps after which the queue is used, if it is full by then. It is filled
            from the first step on.
        freeze_prototypes_fraction: Share of all steps at the start in which the prototypes stay as they are.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Width of the projections z and of the prototypes.

    Raises:
        ValueError: If a temperature, the regularisation, a count or a share is out of range.

    References:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (2020). arXiv:2006.09882
    """

    several_sizes: ClassVar[bool] = True
    coupled_by: ClassVar[str] = "assignments are balanced over all images of the batch"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        num_prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        num_sinkhorn_iterations: int = 3,
        queue_size: int = 0,
        queue_start_fraction: float = 0.075,
        freeze_prototypes_fraction: float = 0.01,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not (0 < temperature < math.inf and 0 < epsilon < math.inf) or num_sinkhorn_iterations < 1:
            raise ValueError(
                f"SwAV needs temperature > 0, epsilon > 0 and num_sinkhorn_iterations >= 1, found {temperature}, "
                f"{epsilon} and {num_sinkhorn_iterations}."
            )
        shares = {"freeze_prototypes": freeze_prototypes_fraction, "queue_start": queue_start_fraction}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"method.{name}_fraction is a share of all steps in [0, 1], found {share}.")
        self.temperature = temperature
        self.epsilon = epsilon
        self.num_sinkhorn_iterations = num_sinkhorn_iterations
        self.queue_start_fraction = queue_start_fraction
        self.freeze_prototypes_fraction = freeze_prototypes_fraction
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim)
        self.prototypes = Prototypes(projection_dim, num_prototypes)
        num_queues = 2 if queue_size else 0
        self.queues = nn.ModuleList(FeatureQueue(size=queue_size, dim=projection_dim) for _ in range(num_queues))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Assign the two global views; predict each assignment from all other views."""
        h = [self.encoder.embed(views) for views in self.views(batch)]  # the two global views, then the local ones
        z = self.projector(torch.cat(h)).unflatten(0, (-1, len(h[0]) // 2))
        scores = self.prototypes(z)
        codes = torch.stack([self.assign(scores[view], view) for view in range(2)])
        self.global_projections = z[: len(self.queues)].detach()
        return self.log_losses(swapped_prediction(codes, scores, temperature=self.temperature))

    @torch.no_grad()
    def assign(self, scores: Tensor, view: int) -> Tensor:
        """Codes (B, K) of a global view's scores (B, K), balanced over the batch of all ranks and the view's queue."""
        joined = distributed.gather(scores)
        if self.queues and self.progress() >= self.queue_start_fraction:
            queue = cast(FeatureQueue, self.queues[view])
            if queue.is_full():
                joined = torch.cat([joined, self.prototypes(queue.features)])
        codes = sinkhorn_knopp(joined, epsilon=self.epsilon, num_iterations=self.num_sinkhorn_iterations)
        return distributed.own_rows(codes[: len(scores) * distributed.world_size()])

    def after_step(self) -> None:
        """Prototypes get length 1 again; the projections of the global views on all ranks enter their queues."""
        if self.prototypes.weight.grad is not None:  # they have moved
            self.prototypes.normalise()
        for view, queue in enumerate(self.queues):
            queue.push(distributed.gather(self.global_projections[view]))  # type: ignore[operator]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the prototypes at the start; their gradient is dropped only here because DDP waits for every one."""
        if self.progress() < self.freeze_prototypes_fraction:
            self.prototypes.weight.grad = None
