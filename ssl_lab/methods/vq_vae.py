"""The vector-quantised autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.generators.residual import ResidualDecoder
from ssl_lab.methods.parts.autoencoder import Autoencoder, Likelihood
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization
from ssl_lab.types import Batch, Encoder


class Codebook(nn.Module):
    r"""K vectors that follow the means of the features assigned to them, over the batches of all ranks.

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma)\, n_k, \qquad
        m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i \in k} z_i, \qquad e_k = m_k / N_k

    A code whose average use falls below a share of the mean use is put where a random vector of the batch lies; the draw is
    a function of the step, so that ranks agree. This also starts the codebook.

    Args:
        num_codes: Number of codes K.
        code_dim: Their width D.
        decay: Decay of the averages per step.
        restart_share: Share of the mean use below which a code starts again.

    References:
        van den Oord et al., Neural Discrete Representation Learning (2017), appendix A.1. arXiv:1711.00937
        Dhariwal et al., Jukebox (2020), section 3.1. arXiv:2005.00341
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, *, num_codes: int, code_dim: int, decay: float, restart_share: float) -> None:
        super().__init__()
        self.decay = decay
        self.restart_share = restart_share
        self.register_buffer("codes", torch.randn(num_codes, code_dim) / num_codes)
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, code_dim))

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        """Number of the nearest code, int64 (...), of vectors (..., D)."""
        with torch.autocast(z.device.type, enabled=False):
            return (self.codes.square().sum(1) - 2 * z.to(self.codes.dtype) @ self.codes.T).argmin(-1)

    def use(self, index: Tensor) -> Tensor:
        """Count the assignments of each code on all ranks, shape (K,)."""
        ones = torch.ones(index.numel(), dtype=self.counts.dtype, device=index.device)
        return distributed.reduce_sum(torch.zeros_like(self.counts).index_add_(0, index.flatten(), ones))

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor, use: Tensor, *, step: int) -> None:
        """Move towards the vectors (N, D) of this rank, assigned to codes ``index``, (N,); ``use`` is of all ranks."""
        z = z.to(self.sums.dtype)
        num_vectors = len(z) * distributed.world_size()
        chosen = torch.randint(num_vectors, (len(self.codes),), generator=torch.Generator().manual_seed(step))
        own = chosen.to(z.device) - distributed.rank() * len(z)
        is_here = (own >= 0) & (own < len(z))
        candidates = torch.where(is_here.unsqueeze(1), z[own.clamp(0, len(z) - 1)], 0.0)
        sums = torch.zeros_like(self.sums).index_add_(0, index, z)
        sums, candidates = distributed.reduce_sum(torch.stack([sums, candidates]))

        self.counts.lerp_(use, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        mean_use = num_vectors / len(self.codes)
        dead = self.counts < self.restart_share * mean_use
        self.counts.masked_fill_(dead, mean_use)
        self.sums.copy_(torch.where(dead.unsqueeze(1), mean_use * candidates, self.sums))
        self.codes.copy_(self.sums / self.counts.unsqueeze(1))


@final
class VQVAE(Autoencoder):
    r"""An autoencoder whose code is a grid of entries of a learned codebook.

    .. math:: -\log p(x | e) + \beta \sum_{ij} \lVert z_{ij} - \mathrm{sg}[e_{ij}] \rVert^2, \qquad
        e_{ij} = \underset{e_k}{\mathrm{argmin}} \lVert z_{ij} - e_k \rVert

    in nats per image, summed over pixels and positions. The gradient of the decoder passes to the encoder as if nothing
    had been rounded (straight-through). The codebook follows averages instead of a loss. Features are the
    encoder's, the mean over positions before the code is chosen.

    Args:
        encoder: Image encoder that gives a map of features, such as ConvNet; a 1x1 convolution gives z.
        optim: Optimizer and schedule.
        likelihood: p(x|e): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Makes pixels black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``.
        num_codes: Number of codes K.
        code_dim: Width D of the codes.
        commitment: Weight of the distance between z and its code.
        decay: Decay of the codebook's averages per step.
        restart_share: Share of the mean use below which a code restarts at a random vector of the batch.
        decoder_dim: Channels of the decoder.

    Raises:
        ValueError: If the encoder gives no map, or a number is out of range.

    References:
        van den Oord et al., Neural Discrete Representation Learning (2017). arXiv:1711.00937
    """

    coupled_by: ClassVar[str] = "the codebook follows the mean of what the whole batch assigns to it"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        *,
        likelihood: Likelihood = "bernoulli",
        binarize: Binarization = "none",
        num_codes: int = 512,
        code_dim: int = 64,
        commitment: float = 0.25,
        decay: float = 0.99,
        restart_share: float = 0.01,
        decoder_dim: int = 128,
    ) -> None:
        super().__init__(encoder, optim, likelihood=likelihood, binarize=binarize)
        if num_codes < 2 or commitment <= 0 or not 0 < decay < 1 or not 0 < restart_share < 1:
            raise ValueError(
                f"VQVAE needs num_codes >= 2, commitment > 0, and decay and restart_share in (0, 1), found {num_codes}, "
                f"{commitment}, {decay} and {restart_share}."
            )
        self.commitment = commitment
        channels, *map_size = _last_map(encoder)
        self.to_map = nn.Conv2d(channels, code_dim, 1)
        self.codebook = Codebook(num_codes=num_codes, code_dim=code_dim, decay=decay, restart_share=restart_share)
        self.decoder = ResidualDecoder(
            ImageSpec.of(encoder.spec, type(self).__name__),
            in_channels=code_dim,
            map_size=(map_size[0], map_size[1]),
            hidden_dim=decoder_dim,
        )

    @property
    def num_codes(self) -> int:
        """Number K of codes."""
        return len(self.codebook.codes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, round to codes, decode, and stay near the codes."""
        x = self.pixels(batch)
        z = self.encode_map(x)
        index = self.codebook(z)
        e = self.codebook.codes[index]
        commitment = (z - e).square().flatten(1).sum(1).mean()
        reconstruction = self.pixel_nll(self.decode_map(z + (e - z).detach()), x).mean()
        use = self.codebook.use(index)
        self.assigned = (z.detach().flatten(0, 2), index.flatten(), use)
        return self.log_losses(
            reconstruction + self.commitment * commitment,
            reconstruction=reconstruction,
            commitment=commitment,
            perplexity=torch.exp(torch.special.entr(use / use.sum()).sum()),
        )

    def after_step(self) -> None:
        """Move the codebook towards the features assigned to it."""
        self.codebook.follow(*self.assigned, step=self.global_step)

    def encode_map(self, x: Tensor) -> Tensor:
        """Vectors (B, h, w, D) before rounding, in at least fp32."""
        z = self.to_map(self.encoder.maps({"image": x})[-1].tensor)
        return z.to(torch.promote_types(z.dtype, torch.float32)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    def decode_map(self, e: Tensor) -> Tensor:
        """Decode vectors (B, h, w, D) to shape (B, C, H, W)."""
        return self.decoder(e.permute(0, 3, 1, 2))  # type: ignore[no-any-return]

    def codes(self, batch: Batch) -> Tensor:
        """Numbers of the codes, int64 (B, h, w)."""
        return self.codebook(self.encode_map(self.pixels(batch)))  # type: ignore[no-any-return]

    def from_codes(self, codes: Tensor) -> Tensor:
        """Mean images of codes (B, h, w), shape (B, C, H, W) in [0, 1]."""
        return self.mean_image(self.decode_map(self.codebook.codes[codes]))

    def reconstruct(self, batch: Batch) -> Tensor:
        """Mean images of the images' codes, shape (B, C, H, W) in [0, 1]."""
        return self.from_codes(self.codes(batch))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, reconstructions, and both ways between images and codes."""
        functions: dict[str, Callable[..., Any]] = {"codes": self.codes, "from_codes": self.from_codes}
        offered = {name: self.in_eval_mode(torch.no_grad()(fn)) for name, fn in functions.items()}
        return {**super().capabilities(), **offered}


@torch.no_grad()
def _last_map(encoder: Encoder) -> tuple[int, ...]:
    """Shape (D, h, w) of an encoder's last feature map of one sample."""
    training = encoder.training
    image = torch.zeros(1, *encoder.spec.shape, device=next(encoder.parameters()).device)
    last = encoder.eval().maps({"image": image})[-1]
    encoder.train(training)
    return tuple(last.tensor.shape[1:])
