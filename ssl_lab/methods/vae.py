"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.encoders.image import as_float
from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.variational import bernoulli_nll, free_bits, gaussian_kl, gaussian_nll
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, ImageGrid, Modality, Picture


@final
class VAE(Method):
    r"""Variational autoencoder, trained on the evidence lower bound in nats per image.

    .. math:: -\mathrm{ELBO}(x) = \mathbb{E}_{q(z|x)}[-\log p(x|z)] + \beta\, \mathrm{KL}(q(z|x) \,\|\, p(z))

    Both terms are summed over pixels and latent dimensions and averaged over the batch. Features are the posterior
    means.

    Args:
        encoder: Image encoder; two linear layers on its features give mean and log variance of q(z|x).
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), DCGAN's by default.
        latent_dim: Width K of z.
        likelihood: ``bernoulli`` reads grey values as probabilities; ``gaussian`` has one learned standard deviation.
        beta: Weight of the KL term (beta-VAE; 1 is the bound itself).
        kl_warmup_fraction: Share of all optimizer steps over which the weight rises linearly from 0 to ``beta``.
        min_kl: Free bits: nats per latent dimension that cost nothing.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes (2014). arXiv:1312.6114
        Higgins et al., beta-VAE (2017). Kingma et al., free bits (2016). arXiv:1606.04934
    """

    modality: ClassVar[Modality] = "image"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        *,
        latent_dim: int = 32,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        beta: float = 1.0,
        kl_warmup_fraction: float = 0.1,
        min_kl: float = 0.0,
    ) -> None:
        super().__init__(encoder, optim)
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"There is no likelihood {likelihood!r}. Choose bernoulli or gaussian.")
        if beta < 0 or min_kl < 0 or not 0 <= kl_warmup_fraction <= 1:
            raise ValueError(
                f"VAE needs beta >= 0, min_kl >= 0 and kl_warmup_fraction in [0, 1], found {beta}, {min_kl} and "
                f"{kl_warmup_fraction}."
            )
        self.likelihood = likelihood
        self.beta = beta
        self.kl_warmup_fraction = kl_warmup_fraction
        self.min_kl = min_kl
        self.to_posterior = nn.Linear(encoder.embed_dim, 2 * latent_dim)
        self.decoder = decoder(encoder.spec, latent_dim=latent_dim)
        if likelihood == "gaussian":
            self.log_sigma = nn.Parameter(torch.tensor(-2.0))

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
        x = as_float(batch["image"])
        mean, log_var = self.posterior(batch)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        reconstruction = self.nll(z, x).mean()
        kl = gaussian_kl(mean, log_var)
        beta = self.current_beta()
        loss = reconstruction + beta * free_bits(distributed.gather(kl), self.min_kl)
        beta_logged = torch.tensor(beta, device=loss.device)
        return self.log_losses(loss, reconstruction=reconstruction, kl=kl.sum(1).mean(), beta=beta_logged)

    def current_beta(self) -> float:
        """Weight of the KL term at this step."""
        warmup = self.kl_warmup_fraction * float(self.trainer.estimated_stepping_batches)
        return self.beta * min(1.0, (self.global_step + 1) / warmup) if warmup > 0 else self.beta

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each (B, K), in fp32."""
        mean, log_var = self.to_posterior(self.encoder.embed(batch)).float().chunk(2, dim=1)
        return mean, log_var.clamp(-15, 10)  # exp stays finite in the first steps

    def nll(self, z: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats per image, shape (B,)."""
        out = self.decoder(z)
        if self.likelihood == "bernoulli":
            return bernoulli_nll(out, x)
        return gaussian_nll(torch.sigmoid(out), self.log_sigma, x)

    def represent(self, batch: Batch) -> Tensor:
        """Posterior means, shape (B, K)."""
        return self.posterior(batch)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Mean image of p(x|z), shape (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decoder(z).float())

    def reconstruct(self, batch: Batch) -> Tensor:
        """Mean images of the posterior means, shape (B, C, H, W) in [0, 1]."""
        return self.decode(self.represent(batch))

    def elbo(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The bound with one latent sample, its two terms, and nothing weighted; nats per image, each (B,)."""
        mean, log_var = self.posterior(batch)
        z = mean + torch.exp(0.5 * log_var) * _randn(mean.shape, mean.device, generator)
        reconstruction = self.nll(z, as_float(batch["image"]))
        kl = gaussian_kl(mean, log_var).sum(1)
        return {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Mean images of latents drawn from the prior, shape (N, C, H, W) in [0, 1]."""
        return self.decode(_randn((num_samples, self.decoder.latent_dim), self.device, generator))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, samples, the bound, reconstructions and both ways between images and latents."""
        return {
            **super().capabilities(),
            "sample": self.in_eval_mode(torch.no_grad()(self.sample)),
            "elbo": self.in_eval_mode(torch.no_grad()(self.elbo)),
            "encode": self.in_eval_mode(torch.no_grad()(self.represent)),
            "decode": self.in_eval_mode(torch.no_grad()(self.decode)),
            "reconstruct": self.in_eval_mode(torch.no_grad()(self.reconstruct)),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Images above their reconstructions, and samples from the same latents at every step."""
        images = {"image": batch["image"][:12]}
        mean = self.in_eval_mode(self.represent)(images)
        rows = torch.stack([as_float(images["image"]), self.in_eval_mode(self.decode)(mean)])
        fixed = torch.Generator(self.device).manual_seed(0)
        samples = self.in_eval_mode(self.sample)(80, fixed)
        return {
            "reconstructions": ImageGrid(images=rows, row_names=("image", "reconstruction")),
            "samples": ImageGrid(images=samples.unflatten(0, (5, 16))),
        }


def _randn(shape: Any, device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, device=device, generator=generator)
