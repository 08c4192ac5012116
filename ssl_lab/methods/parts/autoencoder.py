"""Shared parts of autoencoders of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ssl_lab.generators.base import NewGenerator
from ssl_lab.losses.variational import bernoulli_nll, gaussian_level_nll, gaussian_nll, logistic_nll
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.optim import Optim
from ssl_lab.pretext.binarize import Binarization, Binarize
from ssl_lab.types import Batch, Encoder, ImageGrid, Picture, Spec

Likelihood: TypeAlias = Literal["bernoulli", "gaussian", "logistic"]


class Autoencoder(Method):
    """Encodes images and minimises the decoder's reconstruction loss, in nats per image.

    The mean image is the sigmoid of what the decoder returns. ``bernoulli`` reads grey values as probabilities, or takes
    binarised pixels; ``gaussian`` is a density with one learned standard deviation for all pixels; ``logistic`` is the
    probability of 8-bit pixels with one learned scale.

    Args:
        encoder: Image encoder.
        optim: Optimizer and schedule.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Whether pixels are made black or white first: ``none``, ``stochastic``, ``static`` or ``threshold``,
            see :class:`Binarize`.

    Raises:
        ValueError: If there is no such likelihood or binarisation, or binarised pixels meet another likelihood.
    """

    takes: ClassVar[type[Spec] | None] = ImageSpec
    collapse_advice: ClassVar[str] = (
        "Lower optim.lr, or train for longer: the mean image is learned before details are."
    )

    def __init__(self, encoder: Encoder, optim: Optim, *, likelihood: Likelihood, binarize: Binarization) -> None:
        super().__init__(encoder, optim)
        if likelihood not in get_args(Likelihood):
            raise ValueError(f"There is no likelihood {likelihood!r}. Choose from {', '.join(get_args(Likelihood))}.")
        if binarize != "none" and likelihood != "bernoulli":
            raise ValueError(
                f"Binarised pixels have a Bernoulli likelihood, found likelihood={likelihood} and binarize={binarize}. Set "
                "method.likelihood=bernoulli or method.binarize=none."
            )
        self.likelihood = likelihood
        self.binarize = Binarize(binarize)
        if likelihood != "bernoulli":
            self.log_sigma = nn.Parameter(torch.tensor(-2.0))

    def pixels(self, batch: Batch) -> Tensor:
        """Return the encoded and predicted pixels in [0, 1], shape (B, C, H, W)."""
        return self.binarize(as_float(batch["image"]), batch.get("index"))  # type: ignore[no-any-return]

    def pixel_nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats per image, shape (B,), from the decoder's output for z."""
        if self.likelihood == "bernoulli":
            return bernoulli_nll(out, x)
        mean = self.mean_image(out)
        return (gaussian_nll if self.likelihood == "gaussian" else logistic_nll)(mean, self.log_sigma, x)

    def level_nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log P of the 8-bit levels of x given z in nats per image, shape (B,): what bits per dimension count."""
        if self.likelihood == "gaussian":
            return gaussian_level_nll(self.mean_image(out), self.log_sigma, x)
        return self.pixel_nll(out, x)

    def mean_image(self, out: Tensor) -> Tensor:
        """Mean of p(x|z), in [0, 1], from the decoder's output for z."""
        return torch.sigmoid(out.to(torch.promote_types(out.dtype, torch.float32)))

    @abstractmethod
    def reconstruct(self, batch: Batch) -> Tensor:
        """Encode and decode the images, shape (B, C, H, W) in [0, 1]."""

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features and reconstructions."""
        return {**super().capabilities(), "reconstruct": self.in_eval_mode(torch.no_grad()(self.reconstruct))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Images above their reconstructions."""
        rows = {name: column[:12] for name, column in batch.items()}
        images = torch.stack([self.in_eval_mode(fn)(rows) for fn in (self.pixels, self.reconstruct)])
        names, caption = ("image", "reconstruction"), CAPTIONS["reconstructions"]
        return {"reconstructions": ImageGrid(images=images, row_names=names, caption=caption)}


class LatentAutoencoder(Autoencoder):
    """An autoencoder whose code is one vector, and whose prior is the standard normal distribution.

    Args:
        encoder: Image encoder.
        optim: Optimizer and schedule.
        decoder: The network of p(x|z), called as ``decoder(spec, latent_dim=K)``.
        latent_dim: Width K of z.
        likelihood: p(x|z): ``bernoulli``, ``gaussian`` or ``logistic``.
        binarize: Whether pixels are made black or white first.
    """

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
        super().__init__(encoder, optim, likelihood=likelihood, binarize=binarize)
        self.decoder = decoder(encoder.spec, latent_dim=latent_dim)

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """Codes of images, or their means, shape (B, K)."""

    def represent(self, batch: Batch) -> Tensor:
        """The codes."""
        return self.encode(batch)

    def nll(self, z: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats per image, shape (B,)."""
        return self.pixel_nll(self.decoder(z), x)

    def decode(self, z: Tensor) -> Tensor:
        """Mean image of p(x|z), shape (B, C, H, W) in [0, 1]."""
        return self.mean_image(self.decoder(z))

    def reconstruct(self, batch: Batch) -> Tensor:
        """Mean images of the codes, shape (B, C, H, W) in [0, 1]."""
        return self.decode(self.encode(batch))

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Mean images of latents drawn from the prior, shape (N, C, H, W) in [0, 1]."""
        shape = (num_samples, self.decoder.latent_dim)
        return self.decode(torch.randn(shape, dtype=self.dtype, device=self.device, generator=generator))  # type: ignore[arg-type]

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, reconstructions, samples, and both ways between images and codes."""
        functions: dict[str, Callable[..., Any]] = {
            "encode": self.encode,
            "decode": self.decode,
            "sample": self.sample,
        }
        offered = {name: self.in_eval_mode(torch.no_grad()(fn)) for name, fn in functions.items()}
        return {**super().capabilities(), **offered}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Images above their reconstructions, and samples from the same latents at every step."""
        fixed = torch.Generator(self.device).manual_seed(0)
        samples = self.in_eval_mode(self.sample)(80, fixed)
        drawn = ImageGrid(images=samples.unflatten(0, (5, 16)), caption=CAPTIONS["samples"])
        return {**super().pictures(batch), "samples": drawn}
