"""Losses of generator and discriminator, on the discriminator's logits, and penalties on its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to logits (B,), each logit of its own image alone."""


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of losses.

    Attributes:
        discriminator: ``(real_logits, fake_logits) -> scalar``.
        generator: ``fake_logits -> scalar``.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def non_saturating() -> AdversarialLoss:
    r"""The non-saturating loss, in nats.

    .. math:: L_D = \mathbb{E}[\mathrm{sp}(-D(x))] + \mathbb{E}[\mathrm{sp}(D(G(z)))], \quad
              L_G = \mathbb{E}[\mathrm{sp}(-D(G(z)))], \quad \mathrm{sp}(t) = \log(1 + e^t)

    References:
        Goodfellow et al., Generative Adversarial Networks (2014), section 3. arXiv:1406.2661
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: F.softplus(-_logits(real)).mean() + F.softplus(_logits(fake)).mean(),
        generator=lambda fake: F.softplus(-_logits(fake)).mean(),
    )


def hinge() -> AdversarialLoss:
    r"""The hinge loss.

    .. math:: L_D = \mathbb{E}[\max(0, 1 - D(x))] + \mathbb{E}[\max(0, 1 + D(G(z)))], \quad
              L_G = -\mathbb{E}[D(G(z))]

    References:
        Miyato et al., Spectral Normalization for GANs (2018), eq. 16-17. arXiv:1802.05957
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1 - _logits(real)).mean() + F.relu(1 + _logits(fake)).mean(),
        generator=lambda fake: -_logits(fake).mean(),
    )


def wasserstein() -> AdversarialLoss:
    r"""The difference of means, whose supremum over 1-Lipschitz critics is the Wasserstein distance.

    .. math:: L_D = \mathbb{E}[D(G(z))] - \mathbb{E}[D(x)], \quad L_G = -\mathbb{E}[D(G(z))]

    The critic must be held to a bounded slope, by :func:`gradient_penalty` or spectral normalisation.

    References:
        Arjovsky et al., Wasserstein GAN (2017), eq. 2. arXiv:1701.07875
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: _logits(fake).mean() - _logits(real).mean(),
        generator=lambda fake: -_logits(fake).mean(),
    )


def least_squares() -> AdversarialLoss:
    r"""Squared distances of logits to 1 for real and 0 for generated images (a = 0, b = c = 1 in the paper).

    .. math:: L_D = \tfrac12 \mathbb{E}[(D(x) - 1)^2] + \tfrac12 \mathbb{E}[D(G(z))^2], \quad
              L_G = \tfrac12 \mathbb{E}[(D(G(z)) - 1)^2]

    References:
        Mao et al., Least Squares Generative Adversarial Networks (2016), eq. 9. arXiv:1611.04076
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: 0.5 * ((_logits(real) - 1).square().mean() + _logits(fake).square().mean()),
        generator=lambda fake: 0.5 * (_logits(fake) - 1).square().mean(),
    )


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    r"""Penalise the distance of the critic's slope from 1 between real and generated images.

    .. math:: \mathbb{E}[(\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1)^2], \qquad \hat x = u\,x + (1 - u)\,G(z)

    Computed in fp32 at least, under autocast too. The norm is taken over all pixels of an image, so it depends on their
    scale: the paper's are in [-1, 1].

    Args:
        critic: The discriminator, twice differentiable and without batch statistics.
        real: Real images, shape (B, C, H, W).
        fake: Generated images, same shape; no gradient reaches them.
        share: Shares u in [0, 1] of the real image, one for each pair, shape (B,).

    Returns:
        Scalar, mean over the batch, differentiable in the critic's parameters; the paper weighs it by 10.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs (2017), eq. 3. arXiv:1704.00028
    """
    between = torch.lerp(fake.detach(), real.detach(), share.view(-1, *[1] * (real.ndim - 1)).to(fake.dtype))
    return (_slopes(critic, between).norm(dim=1) - 1).square().mean()


def r1(critic: Critic, real: Tensor) -> Tensor:
    r"""The discriminator's squared slope at real images.

    .. math:: \mathbb{E}[\lVert \nabla_x D(x) \rVert_2^2]

    Computed in fp32 at least, under autocast too.

    Args:
        critic: The discriminator, twice differentiable and without batch statistics.
        real: Real images, shape (B, C, H, W).

    Returns:
        Scalar, mean over the batch, differentiable in the critic's parameters; the paper weighs it by gamma / 2.

    References:
        Mescheder et al., Which Training Methods for GANs do actually Converge? (2018), eq. 9. arXiv:1801.04406
    """
    return _slopes(critic, real.detach()).square().sum(1).mean()


def _slopes(critic: Critic, x: Tensor) -> Tensor:
    """Gradient of each logit in its own image, shape (B, C * H * W)."""
    with torch.autocast(x.device.type, enabled=False):
        x = _fp32(x).requires_grad_()
        (slopes,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (slopes + 0 * x.detach()).flatten(1)  # NaN at images that are not finite, where a saturated critic is flat


def _fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _logits(x: Tensor) -> Tensor:
    """In fp32 at least; an infinite one becomes NaN, as the losses take it for perfectly sure and thus perfect."""
    x = _fp32(x)
    return x + 0 * x
