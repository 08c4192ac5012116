"""SwAV: every view predicts to which prototypes another view of its image was assigned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lab import distributed
from ssl_lab.heads import Projector, Prototypes
from ssl_lab.losses.clustering import sinkhorn_knopp, swapped_prediction
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.pretext.multi_crop import show_multi_crop
from ssl_lab.types import Batch, Encoder, Modality, Picture


@final
class SwAV(Method):
    """Swapped assignments between views, which are balanced over the prototypes and the batch of all ranks.

    There is no queue of former features: use fewer prototypes where batches are small. Prototypes are normalised in the
    forward pass; the published code normalises them before each step, which to first order is the same.

    Args:
        encoder: Image encoder that takes images of any size.
        optim: Optimizer and schedule.
        views: Draws two global views and local ones: (2, B, C, H, W) and (V - 2, B, C, h, w), in [0, 1].
        num_prototypes: Number of prototypes K.
        temperature: Softmax temperature of the predictions.
        epsilon: Entropy regularisation of the assignments.
        num_sinkhorn_iterations: Iterations of Sinkhorn-Knopp.
        freeze_prototypes_fraction: Share of all steps at the start in which the prototypes stay as they are.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Width of the projections z and of the prototypes.

    Raises:
        ValueError: If a temperature, the regularisation, a count or a share is out of range.

    References:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (2020). arXiv:2006.09882
    """

    modality: ClassVar[Modality] = "image"
    coupled_by: ClassVar[str] = "assignments are balanced over all images of the batch"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: nn.Module,
        *,
        num_prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        num_sinkhorn_iterations: int = 3,
        freeze_prototypes_fraction: float = 0.01,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
    ) -> None:
        super().__init__(encoder, optim)
        if temperature <= 0 or epsilon <= 0 or num_sinkhorn_iterations < 1:
            raise ValueError(
                f"SwAV needs temperature > 0, epsilon > 0 and num_sinkhorn_iterations >= 1, found {temperature}, "
                f"{epsilon} and {num_sinkhorn_iterations}."
            )
        if not 0 <= freeze_prototypes_fraction <= 1:
            raise ValueError(
                f"method.freeze_prototypes_fraction is a share of all steps in [0, 1], found {freeze_prototypes_fraction}."
            )
        self.views = views
        self.temperature = temperature
        self.epsilon = epsilon
        self.num_sinkhorn_iterations = num_sinkhorn_iterations
        self.freeze_prototypes_fraction = freeze_prototypes_fraction
        self.projector = Projector(encoder.embed_dim, hidden_dim=hidden_dim, out_dim=projection_dim)
        self.prototypes = Prototypes(projection_dim, num_prototypes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Assign the two global views; predict each assignment from all other views."""
        views = self.views(batch["image"])
        h = torch.cat([self.encoder.embed({"image": crops.flatten(0, 1)}) for crops in views if len(crops)])
        scores = self.prototypes(self.projector(h)).unflatten(0, (-1, len(batch["image"])))
        codes = torch.stack([self.assign(scores[0]), self.assign(scores[1])])
        return self.log_losses(swapped_prediction(codes, scores, temperature=self.temperature))

    @torch.no_grad()
    def assign(self, scores: Tensor) -> Tensor:
        """Codes (B, K) of one view's scores (B, K), balanced over the batch of all ranks."""
        joined = distributed.gather(scores)
        codes = sinkhorn_knopp(joined, epsilon=self.epsilon, num_iterations=self.num_sinkhorn_iterations)
        return distributed.own_rows(codes)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the prototypes at the start; their gradient is dropped only here because DDP waits for every one."""
        if self.progress() < self.freeze_prototypes_fraction:
            self.prototypes.weight.grad = None

    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """The images of a batch with their global views, and their local views."""
        return show_multi_crop(batch["image"], self.views)
