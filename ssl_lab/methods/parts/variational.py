"""Shared parts of methods with a Gaussian posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_lab.generators.base import NewGenerator
from ssl_lab.losses.variational import gaussian_kl, gaussian_log_density
from ssl_lab.methods.parts.autoencoder import LatentAutoencoder, Likelihood
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


class Variational(LatentAutoencoder):
    """An autoencoder whose encoder gives a diagonal Gaussian q(z|x) by two linear layers on its features.

    Args:
        encoder: Image encoder.
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), called as ``decoder(spec, latent_dim=K)``.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Whether pixels are made black or white first.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes (2014). arXiv:1312.6114
    """

    collapse_advice: ClassVar[str] = (
        "The posterior may have collapsed to the prior, see the KL: lower its weight (method.beta), raise it more slowly "
        "(method.kl_warmup_fraction), take a weaker decoder, or lower optim.lr."
    )

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator,
        *,
        latent_dim: int,
        likelihood: Likelihood,
        binarize: Binarization,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        self.to_posterior = nn.Linear(encoder.embed_dim, 2 * latent_dim)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each (B, K), in at least fp32."""
        out = self.to_posterior(self.encoder.embed({"image": x}))
        mean, log_var = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=1)
        return mean, log_var.clamp(-15, 10)  # exp stays finite in the first steps

    def draw(self, mean: Tensor, log_var: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One z of each Gaussian, with gradient into both (the reparameterisation trick)."""
        if generator is None:
            noise = torch.randn_like(mean)
        else:
            noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return mean + torch.exp(0.5 * log_var) * noise

    def encode(self, batch: Batch) -> Tensor:
        """Posterior means, shape (B, K)."""
        return self.posterior(self.pixels(batch))[0]

    def elbo(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The bound with one latent sample, its two terms, and nothing weighted; nats per image, each (B,).

        Of a Gaussian also ``level_nll``, which takes the place of ``reconstruction`` in bits per dimension.
        """
        x = self.pixels(batch)
        mean, log_var = self.posterior(x)
        out = self.decoder(self.draw(mean, log_var, generator))
        reconstruction = self.pixel_nll(out, x)
        kl = gaussian_kl(mean, log_var).sum(1)
        terms = {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}
        return terms | {"level_nll": self.level_nll(out, x)} if self.likelihood == "gaussian" else terms

    def log_weights(self, batch: Batch, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Importance weights log p(x,z) - log q(z|x) of z drawn from q(z|x), in nats, shape (num_samples, B)."""
        x = self.pixels(batch)
        mean, log_var = (stats.expand(num_samples, -1, -1) for stats in self.posterior(x))
        z = self.draw(mean, log_var, generator)
        zero = torch.zeros_like(z)
        log_prior = gaussian_log_density(z, zero, zero).sum(2)
        log_posterior = gaussian_log_density(z, mean, log_var).sum(2)
        nll = self.nll(z.flatten(0, 1), x.repeat(num_samples, 1, 1, 1)).unflatten(0, (num_samples, len(x)))
        return log_prior - log_posterior - nll

    def latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Posterior means, and KL from the prior in nats, of each image and dimension, each (B, K)."""
        mean, log_var = self.posterior(self.pixels(batch))
        return mean, gaussian_kl(mean, log_var)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Return the functions of autoencoders, the bound, importance weights, and the use of each latent dimension."""
        functions: dict[str, Callable[..., Any]] = {
            "elbo": self.elbo,
            "log_weights": self.log_weights,
            "latents": self.latents,
        }
        offered = {name: self.in_eval_mode(torch.no_grad()(fn)) for name, fn in functions.items()}
        return {**super().capabilities(), **offered}
