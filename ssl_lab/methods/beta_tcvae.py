"""The beta-TCVAE: independent dimensions of the latent."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.variational import decomposed_kl
from ssl_lab.methods.parts.autoencoder import Likelihood
from ssl_lab.methods.parts.variational import Variational
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


@final
class BetaTCVAE(Variational):
    r"""A VAE that pays more for dependence between latent dimensions than for the rest of the KL.

    .. math:: \mathbb{E}[-\log p(x|z)] + \alpha\, I_q(z; n) + \beta\, \mathrm{KL}(q(z) \,\|\, \textstyle\prod_j q(z_j))
        + \gamma \sum_j \mathrm{KL}(q(z_j) \,\|\, p(z_j))

    With all weights at one this is a VAE. The aggregate posterior q(z) is estimated from the batch of all ranks by
    minibatch-weighted sampling.

    Args:
        encoder: Image encoder; two linear layers on its features give mean and log variance of q(z|x).
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), DCGAN's by default.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        alpha: Weight of the mutual information of images and codes.
        beta: Weight of the total correlation.
        gamma: Weight of the distance of each dimension from its prior.

    Raises:
        ValueError: If a weight is negative.

    References:
        Chen et al., Isolating Sources of Disentanglement in VAEs (2018), eq. 4. arXiv:1802.04942
    """

    coupled_by: ClassVar[str] = "the aggregate posterior is estimated from all images of the batch"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        decoder: NewGenerator = DCGANGenerator,
        *,
        latent_dim: int = 10,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__(encoder, optim, decoder, latent_dim=latent_dim, likelihood=likelihood, binarize=binarize)
        if min(alpha, beta, gamma) < 0:
            raise ValueError(f"BetaTCVAE needs weights of at least 0, found {alpha}, {beta} and {gamma}.")
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, sample, decode, and pay for the parts of the KL."""
        x = self.pixels(batch)
        mean, log_var = self.posterior(x)
        z = self.draw(mean, log_var)
        reconstruction = self.nll(z, x).mean()
        z, mean, log_var = distributed.gather(torch.stack([z, mean, log_var], dim=1)).unbind(1)
        kl = decomposed_kl(z, mean, log_var, num_samples=self.num_train_samples(len(z)))
        weighted = self.alpha * kl.index_code_mi + self.beta * kl.total_correlation + self.gamma * kl.dimension_kl
        return self.log_losses(reconstruction + weighted, reconstruction=reconstruction, **kl._asdict())

    def num_train_samples(self, joined_batch_size: int) -> int:
        """Images of an epoch, counted by its batches; none of the gradients depends on them."""
        return int(self.trainer.num_training_batches) * joined_batch_size
