"""SupCon: contrast all images of a class with those of the others."""

from __future__ import annotations

import math
from typing import ClassVar, final

from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.losses.contrastive import supcon
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.types import Batch, Encoder


@final
class SupCon(JointEmbedding):
    r"""Supervised contrastive learning: positives are all views of a class, over all ranks.

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
                       \log \frac{\exp(z_i \cdot z_p/\tau)}{\sum_{k \ne i} \exp(z_i \cdot z_k/\tau)}

    where P(i) are the other views of i's class and z the projections at unit length. It reads labels: its scores are a
    yardstick for methods that do not. Images without a label have only their own other view as a positive.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        views: Draws two views of a batch.
        temperature: Softmax temperature.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Width of the projections z.

    References:
        Khosla et al., Supervised Contrastive Learning (2020). arXiv:2004.11362
    """

    uses_labels: ClassVar[bool] = True
    coupled_by: ClassVar[str] = "all other images of the batch are its positives or negatives"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        temperature: float = 0.1,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
    ) -> None:
        super().__init__(encoder, optim, views)
        if not 0 < temperature < math.inf:
            raise ValueError(f"method.temperature must be positive and finite, found {temperature}.")
        self.temperature = temperature
        self.projector = nn.Sequential(
            nn.Linear(encoder.embed_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, projection_dim)
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Two views, one forward pass, and the classes of the batch of all ranks."""
        if "label" not in batch:
            raise ValueError(
                f"SupCon reads labels, but batches of this data hold only {sorted(batch)}. Choose a data= whose pretrain "
                "split is labelled, or method=simclr."
            )
        z = self.projector(self.encoder.embed(self.views(batch)))
        z_a, z_b = (distributed.gather(part) for part in z.chunk(2))
        loss = supcon(z_a, z_b, distributed.gather(batch["label"]), temperature=self.temperature)
        return self.log_losses(loss)
