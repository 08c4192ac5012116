"""The beta-VAE whose capacity grows."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.variational import gaussian_kl
from ssl_lab.methods.parts.autoencoder import Likelihood
from ssl_lab.methods.parts.variational import Variational
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


@final
class BetaVAE(Variational):
    r"""A VAE whose KL follows a capacity that grows during training, so that latents come into use one by one.

    .. math:: \mathbb{E}[-\log p(x|z)] + \gamma\, |\overline{\mathrm{KL}} - C(t)|, \qquad
        C(t) = C_{\max} \min(1, t / t_{\max})

    The KL is the mean over the batch of all ranks. The earlier beta-VAE, with a constant weight of the KL, is ``VAE`` with
    another ``beta``.

    Args:
        encoder: Image encoder; two linear layers on its features give mean and log variance of q(z|x).
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), DCGAN's by default.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        gamma: Weight of the distance to the capacity.
        max_capacity: KL at the end, in nats per image.
        capacity_fraction: Share of all optimizer steps over which the capacity grows from 0.

    Raises:
        ValueError: If the weight or the capacity is not positive, or the growth no share of the steps.

    References:
        Burgess et al., Understanding disentangling in beta-VAE (2018), eq. 8. arXiv:1804.03599
    """

    coupled_by: ClassVar[str] = "the capacity is compared with the mean KL of the batch"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        *,
        latent_dim: int = 10,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        gamma: float = 1000.0,
        max_capacity: float = 25.0,
        capacity_fraction: float = 1.0,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        if gamma <= 0 or max_capacity <= 0 or not 0 < capacity_fraction <= 1:
            raise ValueError(
                f"BetaVAE needs gamma > 0, max_capacity > 0 and capacity_fraction in (0, 1], found {gamma}, {max_capacity} "
                f"and {capacity_fraction}."
            )
        self.gamma = gamma
        self.max_capacity = max_capacity
        self.capacity_fraction = capacity_fraction

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, sample, decode, and pay for the distance of the KL to the capacity."""
        x = self.pixels(batch)
        mean, log_var = self.posterior(x)
        z = self.draw(mean, log_var)
        reconstruction = self.nll(z, x).mean()
        kl = distributed.gather(gaussian_kl(mean, log_var)).sum(1).mean()
        capacity = torch.tensor(self.capacity(), device=kl.device)
        loss = reconstruction + self.gamma * (kl - capacity).abs()
        return self.log_losses(loss, reconstruction=reconstruction, kl=kl, capacity=capacity)

    def capacity(self) -> float:
        """Nats per image that the KL is held at in this step."""
        return self.max_capacity * min(1.0, self.progress() / self.capacity_fraction)
