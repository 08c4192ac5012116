"""What generator and discriminator minimise, on the discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


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
        discriminator=lambda real, fake: F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean(),
        generator=lambda fake: F.softplus(-fake.float()).mean(),
    )


def hinge() -> AdversarialLoss:
    r"""The hinge loss.

    .. math:: L_D = \mathbb{E}[\max(0, 1 - D(x))] + \mathbb{E}[\max(0, 1 + D(G(z)))], \quad
              L_G = -\mathbb{E}[D(G(z))]

    References:
        Miyato et al., Spectral Normalization for GANs (2018), eq. 16-17. arXiv:1802.05957
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean(),
        generator=lambda fake: -fake.float().mean(),
    )
