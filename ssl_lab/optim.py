"""Optimizer, schedule and weight-decay groups as one value, and LARS."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Groups: TypeAlias = list[dict[str, Any]]
Decay: TypeAlias = Literal["cosine", "linear"]
TrustNorm: TypeAlias = Literal["sum", "joint"]
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
}


@dataclass(frozen=True, kw_only=True)
class Optim(ABC):
    """Update rule of parameters: learning rate, decay, and a schedule counted per optimizer step.

    The learning rate is used as written; nothing rescales it by batch size or number of devices. Biases and the
    parameters of normalisation layers (all tensors with fewer than two dimensions) get no weight decay.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decay of matrices and convolution kernels.
        warmup_fraction: Share of all steps over which the rate rises linearly; the first of W steps has ``lr / W``.
        final_lr_fraction: Rate after the last step, as a share of ``lr``; 1 keeps the rate constant after warm-up.
        decay: How the rate falls after warm-up: along half a ``cosine``, or ``linear``.
    """

    lr: float
    weight_decay: float = 0.0
    warmup_fraction: float = 0.0
    final_lr_fraction: float = 0.0
    decay: Decay = "cosine"

    def __post_init__(self) -> None:
        """Refuse values that no schedule has."""
        if not 0 < self.lr < math.inf:
            raise ValueError(f"The learning rate must be positive and finite, found {self.lr}. Set optim.lr above 0.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"Weight decay must be finite and at least 0, found {self.weight_decay}. Set optim.weight_decay=0 for none."
            )
        if not 0 <= self.warmup_fraction < 1 or not 0 <= self.final_lr_fraction <= 1:
            raise ValueError(
                f"Schedule shares lie in [0, 1), found warmup_fraction={self.warmup_fraction} and "
                f"final_lr_fraction={self.final_lr_fraction}."
            )
        if self.decay not in DECAYS:
            raise ValueError(
                f"There is no decay {self.decay!r} of the learning rate. Set optim.decay to cosine or linear."
            )

    def build(
        self,
        module: nn.Module,
        *,
        total_steps: int,
        constant: nn.Module | None = None,
        lr_scales: Mapping[nn.Parameter, float] | None = None,
    ) -> tuple[Optimizer, LambdaLR]:
        """Optimizer over a module's trainable parameters, and its schedule over ``total_steps`` steps.

        Args:
            module: What is updated at the scheduled rate.
            total_steps: Optimizer steps of the whole training.
            constant: What is updated at ``lr`` throughout, such as SimSiam's predictor; no part of ``module``.
            lr_scales: Factors of ``lr`` for parameters of ``module`` that do not learn at the whole rate.
        """
        groups = decay_groups(module, weight_decay=self.weight_decay)
        if lr_scales:
            groups = scale_groups(groups, lr_scales, lr=self.lr)
        schedule = warmup_decay(
            total_steps,
            warmup_fraction=self.warmup_fraction,
            final_fraction=self.final_lr_fraction,
            decay=DECAYS[self.decay],
        )
        factors = [schedule] * len(groups)
        if constant is not None:
            groups += decay_groups(constant, weight_decay=self.weight_decay)
            factors += [lambda step: 1.0] * (len(groups) - len(factors))
        optimizer = self.make_optimizer(groups)
        return optimizer, LambdaLR(optimizer, factors)

    @abstractmethod
    def make_optimizer(self, groups: Groups) -> Optimizer:
        """The optimizer itself, over parameter groups that carry their own weight decay."""


@dataclass(frozen=True, kw_only=True)
class AdamW(Optim):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101).

    Attributes:
        betas: Decay of the averages of the gradient and of its square, per step.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup_fraction: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        """Refuse betas outside of [0, 1), besides what no schedule has."""
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"AdamW needs two betas in [0, 1), found {self.betas}. Set optim.betas=[0.9,0.999].")

    def make_optimizer(self, groups: Groups) -> Optimizer:
        """Fused AdamW."""
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), fused=True)


@dataclass(frozen=True, kw_only=True)
class SGD(Optim):
    """Stochastic gradient descent with momentum.

    Attributes:
        momentum: Momentum factor.
    """

    lr: float = 0.3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.01
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a momentum outside of [0, 1), besides what no schedule has."""
        super().__post_init__()
        _check_momentum(self.momentum)

    def make_optimizer(self, groups: Groups) -> Optimizer:
        """Fused SGD. Its momenta begin at 0, as they do anyway: it cannot step while some parameters have none."""
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        if self.momentum:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer


@dataclass(frozen=True, kw_only=True)
class LARS(Optim):
    """Layer-wise adaptive rate scaling (You et al., 2017, arXiv:1708.03888); see :class:`LARSOptimizer`.

    Tensors with fewer than two dimensions are updated by plain SGD with momentum, whatever the weight decay.

    Attributes:
        momentum: Momentum factor.
        eta: Trust coefficient.
        clip: Limit the trust ratio, so that it never enlarges a step.
        trust_norm: How gradient and decay count in the trust ratio: ``sum`` of their norms, as in the paper; ``joint``,
            the norm of their sum, as in MoCo v3's code.
    """

    lr: float = 0.4
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.01
    momentum: float = 0.9
    eta: float = 0.02
    clip: bool = True
    trust_norm: TrustNorm = "sum"

    def __post_init__(self) -> None:
        """Refuse values that LARS does not have, besides what no schedule has."""
        super().__post_init__()
        _check_momentum(self.momentum)
        if not 0 < self.eta < math.inf:
            raise ValueError(f"LARS needs a finite trust coefficient above 0, found {self.eta}. Set optim.eta=0.02.")
        if self.trust_norm not in get_args(TrustNorm):
            raise ValueError(f"LARS has no norm {self.trust_norm!r}. Set optim.trust_norm to sum or joint.")

    def make_optimizer(self, groups: Groups) -> Optimizer:
        """SGD whose step is scaled per tensor, but for tensors with fewer than two dimensions."""
        flagged = [{**group, "adapt": all(p.ndim >= 2 for p in group["params"])} for group in groups]
        return LARSOptimizer(
            flagged, lr=self.lr, momentum=self.momentum, eta=self.eta, clip=self.clip, trust_norm=self.trust_norm
        )


class LARSOptimizer(Optimizer):
    r"""SGD with momentum in which each weight tensor's step is scaled by its trust ratio.

    .. math:: g' = r\,(g + \lambda w), \qquad
        r_\mathrm{sum} = \eta \frac{\lVert w \rVert}{\lVert g \rVert + \lambda \lVert w \rVert}, \qquad
        r_\mathrm{joint} = \eta \frac{\lVert w \rVert}{\lVert g + \lambda w \rVert}

    The velocity is :math:`v \leftarrow m v + g'` and the step :math:`-\mathrm{lr} \cdot v`. The sum is the paper's and
    solo-learn's; the joint norm is that of the code of MoCo v3 and SimCLR. Both agree without weight decay. SimCLR's code
    puts the rate inside the velocity, which differs while the rate changes. The ratio is 1 where it has no
    value: for weights that are all zero, and for gradients that are (of the joint norm, with decay).

    Groups whose ``adapt`` is False (biases, normalisation) are updated by plain SGD with momentum, as in all of these.

    Args:
        params: Parameter groups, each with ``weight_decay`` and, unless it is adapted, ``adapt=False``.
        lr: Learning rate.
        momentum: Momentum factor.
        eta: Trust coefficient.
        clip: Never let the trust ratio enlarge the step: ``r = min(r / lr, 1)``, as in the CIFAR recipes.
        trust_norm: Which ratio, ``sum`` or ``joint``.
    """

    def __init__(
        self, params: Groups, *, lr: float, momentum: float, eta: float, clip: bool, trust_norm: TrustNorm = "sum"
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "eta": eta, "clip": clip, "trust_norm": trust_norm}
        super().__init__(params, {**settings, "weight_decay": 0.0, "adapt": True})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also of checkpoints that hold no ``adapt`` and no ``trust_norm``."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("adapt", all(p.ndim >= 2 for p in group["params"]))
            group.setdefault("trust_norm", "sum")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """All tensors of a group in few kernels; norms and ratios stay on the device."""
        decay, lr = group["weight_decay"], group["lr"]
        grads = [p.grad for p in params if p.grad is not None]
        decayed = list(torch._foreach_add(grads, params, alpha=decay))
        if group["adapt"]:
            joint = group["trust_norm"] == "joint"
            w_norm, norm = (torch.stack(torch._foreach_norm(each)) for each in (params, decayed if joint else grads))
            if not joint:
                norm = torch.where(norm > 0, norm + decay * w_norm, 0.0)
            ratio = group["eta"] * w_norm / norm
            if group["clip"]:
                ratio = (ratio / lr).clamp(max=1.0) if lr > 0 else torch.ones_like(ratio)
            ratio = torch.where((w_norm > 0) & (norm > 0), ratio, 1.0)
            torch._foreach_mul_(decayed, list(ratio.unbind()))
        velocities = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in params]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, decayed)
        torch._foreach_add_(params, velocities, alpha=-lr)


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"Momentum lies in [0, 1), found {momentum}. Set optim.momentum=0.9.")


def decay_groups(module: nn.Module, *, weight_decay: float) -> Groups:
    """Trainable parameters in two groups: with weight decay, and (fewer than two dimensions) without.

    Raises:
        ValueError: If nothing is trainable.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(module).__name__} has no trainable parameters, so there is nothing to train.")
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def scale_groups(groups: Groups, lr_scales: Mapping[nn.Parameter, float], *, lr: float) -> Groups:
    """Parameter groups split by the factor of their learning rate, the largest factor first.

    Args:
        groups: Groups with weight decay, as of :func:`decay_groups`; each keeps its own.
        lr_scales: Factor of each parameter; 1 where a parameter is not named.
        lr: The rate that is scaled.
    """
    split: dict[tuple[float, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for p in group["params"]:
            scale = lr_scales.get(p, 1.0)
            part = split.setdefault((-scale, number), {**group, "params": [], "lr": scale * lr})
            part["params"].append(p)
    return [split[key] for key in sorted(split)]


def warmup_decay(
    total_steps: int, *, warmup_fraction: float, final_fraction: float, decay: Callable[[float], float]
) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear warm-up, then a fall to ``final_fraction``.

    Args:
        total_steps: Optimizer steps of the whole training; afterwards the rate stays.
        warmup_fraction: Share of them over which the factor rises to 1.
        final_fraction: Factor at the end.
        decay: From the share of the fall that is done to what is left of it, from 1 to 0.
    """
    warmup = round(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return final_fraction + (1 - final_fraction) * decay(progress)

    return factor
