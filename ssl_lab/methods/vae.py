"""The variational autoencoder."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.variational import free_bits, gaussian_kl
from ssl_lab.methods.parts.autoencoder import Likelihood
from ssl_lab.methods.parts.variational import Variational
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


@final
class VAE(Variational):
    r"""Variational autoencoder, trained on the evidence lower bound in nats per image.

    .. math:: -\mathrm{ELBO}(x) = \mathbb{E}_{q(z|x)}[-\log p(x|z)] + \beta\, \mathrm{KL}(q(z|x) \,\|\, p(z))

    Both terms are summed over pixels and latent dimensions and averaged over the batch. Features are the posterior
    means.

    Args:
        encoder: Image encoder; two linear layers on its features give mean and log variance of q(z|x).
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), DCGAN's by default.
        latent_dim: Width K of z.
        likelihood: ``bernoulli`` reads grey values as probabilities; ``gaussian`` has one learned standard deviation,
            ``logistic``, of 8-bit pixels, one learned scale.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        beta: Weight of the KL term (beta-VAE; 1 is the bound itself).
        kl_warmup_fraction: Share of all optimizer steps over which the weight rises linearly from 0 to ``beta``.
        min_kl: Free bits: nats per latent dimension that cost nothing.

    Raises:
        ValueError: If a weight is negative, or the warm-up no share.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes (2014). arXiv:1312.6114
        Higgins et al., beta-VAE (2017). Kingma et al., free bits (2016). arXiv:1606.04934
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        *,
        latent_dim: int = 32,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        beta: float = 1.0,
        kl_warmup_fraction: float = 0.1,
        min_kl: float = 0.0,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        if beta < 0 or min_kl < 0 or not 0 <= kl_warmup_fraction <= 1:
            raise ValueError(
                f"VAE needs beta >= 0, min_kl >= 0 and kl_warmup_fraction in [0, 1], found {beta}, {min_kl} and "
                f"{kl_warmup_fraction}."
            )
        self.beta = beta
        self.kl_warmup_fraction = kl_warmup_fraction
        self.min_kl = min_kl

    def on_fit_start(self) -> None:
        """Refuse to accumulate under free bits, which are taken from the mean over the whole batch."""
        parts = self.trainer.accumulate_grad_batches
        if self.min_kl > 0 and parts != 1:
            raise ValueError(
                f"VAE with min_kl={self.min_kl} cannot accumulate gradients over {parts} batches: free bits are counted on "
                "the mean KL of a batch. Use trainer.accumulate_grad_batches=1 or method.min_kl=0."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, sample, decode, and pay for both terms."""
        x = self.pixels(batch)
        mean, log_var = self.posterior(x)
        z = self.draw(mean, log_var)
        reconstruction = self.nll(z, x).mean()
        kl = gaussian_kl(mean, log_var)
        beta = self.current_beta()
        loss = reconstruction + beta * free_bits(distributed.gather(kl), self.min_kl)
        beta_logged = torch.tensor(beta, device=loss.device)
        return self.log_losses(loss, reconstruction=reconstruction, kl=kl.sum(1).mean(), beta=beta_logged)

    def current_beta(self) -> float:
        """Weight of the KL term at this step."""
        warmup = self.kl_warmup_fraction * self.total_steps
        return self.beta * min(1.0, (self.global_step + 1) / warmup) if warmup > 0 else self.beta
