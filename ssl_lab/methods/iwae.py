"""The importance weighted autoencoder."""

from __future__ import annotations

from typing import final

from torch import Tensor

from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.variational import importance_bound
from ssl_lab.methods.parts.autoencoder import Likelihood
from ssl_lab.methods.parts.variational import Variational
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


@final
class IWAE(Variational):
    r"""A VAE trained on a bound that several latent samples make tighter.

    .. math:: -\log \frac1S \sum_{s=1}^{S} \frac{p(x, z_s)}{q(z_s|x)}, \qquad z_s \sim q(z|x)

    The gradient is that of the bound itself, through all samples. They stand in the decoder's batch, S times B: memory and
    time grow with S, but for the encoder, which sees each image once.

    Args:
        encoder: Image encoder; two linear layers on its features give mean and log variance of q(z|x).
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), DCGAN's by default.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        num_samples: Latent samples S per image; 1 is a VAE whose KL is sampled.

    Raises:
        ValueError: If there is no sample.

    References:
        Burda et al., Importance Weighted Autoencoders (2016). arXiv:1509.00519
    """

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        *,
        latent_dim: int = 50,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        num_samples: int = 50,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        if num_samples < 1:
            raise ValueError(f"IWAE needs at least one latent sample per image, found num_samples={num_samples}.")
        self.num_samples = num_samples

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weigh several latent samples of each image, and maximise the logarithm of their mean weight."""
        log_weights = self.log_weights(batch, self.num_samples)
        loss = -importance_bound(log_weights).mean()
        return self.log_losses(loss, elbo=log_weights.mean())
