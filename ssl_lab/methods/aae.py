"""The adversarial autoencoder."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.heads import mlp
from ssl_lab.losses.adversarial import AdversarialLoss, non_saturating
from ssl_lab.methods.parts.autoencoder import LatentAutoencoder, Likelihood
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


@final
class AAE(LatentAutoencoder):
    r"""An autoencoder whose codes a discriminator cannot tell from samples of the prior.

    .. math:: \mathbb{E}[-\log p(x|z(x))] + \lambda\, \mathcal{L}_G(D(z(x))), \qquad
        \min_D \mathcal{L}_D(D(z), D(z(x))), \quad z \sim \mathcal{N}(0, I)

    The code is a function of the image, and no divergence has to be known in closed form. One optimizer takes all steps at
    once: the encoder is moved against the discriminator as it is, and the discriminator sees codes without gradient. The
    paper alternates two optimizers.

    Args:
        encoder: Image encoder; a linear layer on its features gives the code.
        optim: Optimizer and schedule of all networks.
        decoder: The network of p(x|z), DCGAN's by default.
        loss: The adversarial loss, ``non_saturating()`` by default.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        adversarial_weight: Weight of the encoder's adversarial loss beside nats per image.
        hidden_dim: Width of the discriminator's two hidden layers.

    Raises:
        ValueError: If the weight is not positive.

    References:
        Makhzani et al., Adversarial Autoencoders (2015). arXiv:1511.05644
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        loss: AdversarialLoss | None = None,
        *,
        latent_dim: int = 8,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        adversarial_weight: float = 10.0,
        hidden_dim: int = 1000,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        if adversarial_weight <= 0:
            raise ValueError(f"AAE needs adversarial_weight > 0, found {adversarial_weight}.")
        self.adversarial_weight = adversarial_weight
        self.loss = loss or non_saturating()
        self.to_code = nn.Linear(encoder.embed_dim, latent_dim)
        self.discriminator = mlp((latent_dim, hidden_dim, hidden_dim, 1), "relu")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Reconstruct, tell codes from samples of the prior, and hide the difference."""
        x = self.pixels(batch)
        z = self.code(x)
        reconstruction = self.nll(z, x).mean()
        real_logits, fake_logits = self.discriminator(torch.cat([torch.randn_like(z), z.detach()])).squeeze(1).chunk(2)
        discriminator_loss = self.loss.discriminator(real_logits, fake_logits)
        adversarial = self.loss.generator(self._judge_as_it_is(z))
        return self.log_losses(
            reconstruction + self.adversarial_weight * adversarial + discriminator_loss,
            reconstruction=reconstruction,
            adversarial=adversarial,
            discriminator=discriminator_loss,
        )

    def code(self, x: Tensor) -> Tensor:
        """Codes (B, K) of pixels, in at least fp32."""
        z = self.to_code(self.encoder.embed({"image": x}))
        return z.to(torch.promote_types(z.dtype, torch.float32))  # type: ignore[no-any-return]

    def encode(self, batch: Batch) -> Tensor:
        """Codes, shape (B, K)."""
        return self.code(self.pixels(batch))

    def _judge_as_it_is(self, z: Tensor) -> Tensor:
        """The discriminator's logits (B,), with gradient into z alone."""
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, frozen, (z,)).squeeze(1)  # type: ignore[no-any-return]
