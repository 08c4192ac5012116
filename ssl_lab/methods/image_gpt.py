"""Image GPT: causal modelling of the codes of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.encoders.code_gpt import CodeGPT
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, ImageGrid, Picture, Spec


@final
class ImageGPT(Method):
    r"""Predicts each code of an image from those before it, row by row.

    .. math:: \ell = -\frac{1}{L} \sum_{t=1}^{L} \log p(c_t \mid c_{<t})

    in nats per code, over the L codes that a trained VQ-VAE makes of an image. Drawn code after code and decoded, this is
    also the VQ-VAE's prior. Features are those of a middle layer. The paper's codes are single pixels of 512 colours
    instead.

    Args:
        encoder: GPT-2 over codes.
        optim: Optimizer and schedule.

    Raises:
        ValueError: If the encoder does not read codes.

    References:
        Chen et al., Generative Pretraining from Pixels (2020).
        van den Oord et al., Neural Discrete Representation Learning (2017), section 3.3. arXiv:1711.00937
    """

    takes: ClassVar[type[Spec] | None] = ImageSpec
    may_collapse: ClassVar[bool] = False
    learns_slowly: ClassVar[str] = "Pixels are first predicted from the one before, and shapes after many epochs"
    whole_by: ClassVar[str] = "its features come from a layer inside of a block, outside of the block's own pass"
    encoder: CodeGPT

    def __init__(self, encoder: CodeGPT, optim: Optim) -> None:
        super().__init__(encoder, optim)
        if not isinstance(encoder, CodeGPT):
            raise ValueError(
                f"ImageGPT models the codes of images, but a {type(encoder).__name__} reads none. Choose "
                "encoder=code_gpt_mini encoder.codes=run:DIR with a run of method=vq_vae."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predict every code from those before it."""
        return self.log_losses(self.code_losses(batch).mean())

    def code_losses(self, batch: Batch) -> Tensor:
        """Nats of each code given those before it, (B, L)."""
        codes = self.encoder.codes_of(batch)
        logits = self.encoder.logits(self.encoder(codes))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits.mT, codes, reduction="none")

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of codes drawn one after the other."""
        seed = int(torch.randint(2**31, (1,), device=self.device, generator=generator))
        return self.encoder.images_of(self.encoder.draw(num_samples, seed=seed))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, samples and the loss of each code."""
        functions: dict[str, Callable[..., Any]] = {"sample": self.sample, "code_losses": self.code_losses}
        offered = {name: self.in_eval_mode(torch.no_grad()(fn)) for name, fn in functions.items()}
        return {**super().capabilities(), **offered}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Samples of the same seed at every step."""
        fixed = torch.Generator(self.device).manual_seed(0)
        samples = self.in_eval_mode(self.sample)(80, fixed)
        return {"samples": ImageGrid(images=samples.unflatten(0, (5, 16)), caption=CAPTIONS["samples"])}
