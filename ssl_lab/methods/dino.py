"""DINO: a student predicts from every view how its averaged teacher assigns the global views."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lab import distributed
from ssl_lab.heads import ProjectedEncoder, Prototypes
from ssl_lab.losses.clustering import swapped_prediction
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views
from ssl_lab.teacher import Teacher
from ssl_lab.types import Batch, Encoder


@final
class DINO(JointEmbedding):
    r"""Self-distillation with no labels: centring and sharpening the teacher's outputs prevent collapse.

    .. math:: q = \mathrm{softmax}((g_t(x) - c) / \tau_t), \qquad p = \mathrm{softmax}(g_s(x') / \tau_s)

    The centre c is a moving average over the batches of all ranks, moved once per optimizer step. Both networks are
    encoder, projector and prototypes; the teacher sees the two global views, the student all. Features are the
    teacher's, as in the paper's evaluation.

    Args:
        encoder: Encoder of the samples that takes views of any size.
        optim: Optimizer and schedule.
        views: Draws two global views of a batch and smaller, local ones.
        num_prototypes: Width K of the outputs.
        momentum: Momentum of the teacher at the first step; it rises to ``final_momentum``.
        final_momentum: Momentum of the teacher at the last step.
        student_temperature: Softmax temperature of the student.
        teacher_temperature: Softmax temperature of the teacher after its warm-up.
        warmup_teacher_temperature: The same at the first step.
        temperature_warmup_fraction: Share of all steps over which it rises linearly.
        centre_momentum: Momentum of the centre.
        freeze_prototypes_fraction: Share of all steps at the start in which the prototypes stay as they are.
        hidden_dim: Width of the projector's two hidden layers.
        projection_dim: Width of the projections, the head's bottleneck.
        hidden_norm: Whether batch normalisation follows both hidden layers.

    Raises:
        ValueError: If a temperature, momentum or share is out of range.

    References:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers (2021). arXiv:2104.14294
    """

    several_sizes: ClassVar[bool] = True
    centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        views: Views,
        *,
        num_prototypes: int = 4096,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warmup_teacher_temperature: float = 0.04,
        temperature_warmup_fraction: float = 0.1,
        centre_momentum: float = 0.9,
        freeze_prototypes_fraction: float = 0.01,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        hidden_norm: bool = False,
    ) -> None:
        super().__init__(encoder, optim, views)
        temperatures = (student_temperature, teacher_temperature, warmup_teacher_temperature)
        if min(temperatures) <= 0:
            raise ValueError(f"DINO's temperatures of student, teacher and warm-up are positive, found {temperatures}.")
        shares = (temperature_warmup_fraction, centre_momentum, freeze_prototypes_fraction)
        if min(shares) < 0 or max(shares) > 1:
            raise ValueError(
                "DINO's temperature_warmup_fraction, centre_momentum and freeze_prototypes_fraction lie in [0, 1], found "
                f"{shares}."
            )
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.warmup_teacher_temperature = warmup_teacher_temperature
        self.temperature_warmup_fraction = temperature_warmup_fraction
        self.centre_momentum = centre_momentum
        self.freeze_prototypes_fraction = freeze_prototypes_fraction
        self.projector = _projector(encoder.embed_dim, hidden_dim, projection_dim, hidden_norm)
        self.prototypes = Prototypes(projection_dim, num_prototypes)
        self.teacher = Teacher(self.student(), momentum=momentum, final_momentum=final_momentum)
        self.register_buffer("centre", torch.zeros(num_prototypes))
        self.teacher_means: list[Tensor] = []  # of the batches since the last optimizer step

    def student(self) -> nn.Module:
        """The network that the teacher follows: a batch to scores (B, K)."""
        return ProjectedEncoder(self.encoder, projector=self.projector, prototypes=self.prototypes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The teacher assigns the two global views; the student predicts each assignment from all other views."""
        views = self.views(batch)  # the two global ones, then the local ones
        outputs = self.teacher(views[0])
        self.teacher_means.append(outputs.mean(0))
        targets = F.softmax((outputs - self.centre) / self.teacher_temperature_at(self.progress()), dim=1)

        h = torch.cat([self.encoder.embed(crops) for crops in views])
        scores = self.prototypes(self.projector(h)).unflatten(0, (-1, len(outputs) // 2))
        loss = swapped_prediction(targets.unflatten(0, (2, -1)), scores, temperature=self.student_temperature)
        return self.log_losses(loss, teacher_entropy=torch.special.entr(targets).sum(1).mean())

    def teacher_temperature_at(self, progress: float) -> float:
        """Temperature of the teacher after a share of all steps."""
        if progress >= self.temperature_warmup_fraction:
            return self.teacher_temperature
        rise = self.teacher_temperature - self.warmup_teacher_temperature
        return self.warmup_teacher_temperature + rise * progress / self.temperature_warmup_fraction

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the prototypes at the start; their gradient is dropped only here because DDP waits for every one."""
        if self.progress() < self.freeze_prototypes_fraction:
            self.prototypes.weight.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """The teacher follows the student, and the centre the teacher's outputs on all ranks."""
        self.teacher.follow(self.student(), self.progress())
        mean = distributed.reduce_sum(torch.stack(self.teacher_means).mean(0)) / distributed.world_size()
        self.centre.lerp_(mean, 1 - self.centre_momentum)
        self.teacher_means.clear()

    @property
    def feature_encoder(self) -> Encoder:
        """The teacher's."""
        return self.teacher.network.encoder  # type: ignore[return-value]


def _projector(embed_dim: int, hidden_dim: int, projection_dim: int, hidden_norm: bool) -> nn.Sequential:
    """Three linear layers with GELU and the small initial weights of vision transformers."""
    linears = [nn.Linear(d_in, d_out) for d_in, d_out in pairwise([embed_dim, hidden_dim, hidden_dim, projection_dim])]
    layers: list[nn.Module] = []
    for linear in linears:
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        layers += [linear, *([nn.BatchNorm1d(linear.out_features)] if hidden_norm else []), nn.GELU()]
    return nn.Sequential(*layers[: -2 if hidden_norm else -1])
