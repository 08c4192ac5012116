"""Generative adversarial networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, ClassVar, final

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.encoders.image import as_float
from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.losses.adversarial import AdversarialLoss, non_saturating
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, ImageGrid, Modality, Picture


@final
class GAN(Method):
    """A generator against a discriminator whose trunk is the encoder, updated in turn on every batch.

    Samples come from an exponential moving average of the generator. Gradients are averaged over ranks once per
    network and step; DDP's own reduction, which would reduce both networks at every backward pass, is off.

    Args:
        encoder: Trunk of the discriminator; its features are the representation.
        optim: Optimizer and schedule of the discriminator, and of the generator unless ``generator_optim`` is given.
        generator_optim: Optimizer and schedule of the generator.
        generator: The network from latents to images, DCGAN's by default.
        loss: The adversarial loss, ``non_saturating()`` by default.
        latent_dim: Width K of z.
        ema_decay: Decay of the generator's moving average per step.

    References:
        Goodfellow et al., Generative Adversarial Networks (2014). arXiv:1406.2661
        Radford et al., DCGAN (2015). arXiv:1511.06434
    """

    modality: ClassVar[Modality] = "image"
    num_steps: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        generator_optim: Optim | None = None,
        generator: NewGenerator = DCGANGenerator,
        loss: AdversarialLoss | None = None,
        *,
        latent_dim: int = 64,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__(encoder, optim)
        if not 0 <= ema_decay < 1:
            raise ValueError(f"method.ema_decay lies in [0, 1), found {ema_decay}.")
        self.automatic_optimization = False
        self.generator_optim = generator_optim or optim
        self.loss = loss or non_saturating()
        self.ema_decay = ema_decay
        self.to_logit = nn.Linear(encoder.embed_dim, 1)
        self.generator = generator(encoder.spec, latent_dim=latent_dim)
        self.generator_ema = deepcopy(self.generator).requires_grad_(False)
        self.register_buffer("num_steps", torch.tensor(0))

    def on_fit_start(self) -> None:
        """Refuse fp16; Lightning itself refuses accumulation and clipping where optimizers are stepped by hand."""
        if str(self.trainer.precision).startswith("16"):
            raise ValueError(
                f"GAN trains in bf16 or fp32, found trainer.precision={self.trainer.precision}: two optimizers would share "
                "one loss scale. Use trainer.precision=bf16-mixed."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the discriminator, then one of the generator against it."""
        x = as_float(batch["image"])
        discriminator_optimizer, generator_optimizer = self.optimizers()  # type: ignore[attr-defined]

        self._trains(discriminator=True)
        with torch.no_grad():
            fake = self.generate(self.generator, self.latents(len(x)))
        real_logits, fake_logits = self.discriminate(torch.cat([x, fake])).chunk(2)
        discriminator_loss = self.loss.discriminator(real_logits, fake_logits)
        self._update(discriminator_optimizer, discriminator_loss)

        self._trains(discriminator=False)
        generator_loss = self.loss.generator(self.discriminate(self.generate(self.generator, self.latents(len(x)))))
        self._update(generator_optimizer, generator_loss)
        self._update_ema()
        self.encoder.requires_grad_()
        self.to_logit.requires_grad_()

        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.log_losses(
            discriminator_loss + generator_loss,
            discriminator=discriminator_loss,
            generator=generator_loss,
            real_logit=real_logits.mean(),
            fake_logit=fake_logits.mean(),
        )

    def discriminate(self, x: Tensor) -> Tensor:
        """Logits (B,), high where the image looks real."""
        return self.to_logit(self.encoder.embed({"image": x})).squeeze(1)  # type: ignore[no-any-return]

    def generate(self, generator: nn.Module, z: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] from latents (B, K)."""
        return torch.sigmoid(generator(z).float())

    def latents(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal latents (N, K)."""
        return torch.randn(num_samples, self.generator.latent_dim, device=self.device, generator=generator)

    def _trains(self, *, discriminator: bool) -> None:
        self.encoder.requires_grad_(discriminator)
        self.to_logit.requires_grad_(discriminator)
        self.generator.requires_grad_(not discriminator)

    def _update(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            self.manual_backward(loss)
        distributed.average_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()

    @torch.no_grad()
    def _update_ema(self) -> None:
        self.num_steps += 1
        # While few steps are done the average is young: decay rises as (1 + n) / (10 + n), as in TensorFlow's EMA.
        decay: Tensor = ((1 + self.num_steps) / (10 + self.num_steps)).clamp(max=self.ema_decay)
        for average, value in zip(self.generator_ema.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(value, 1 - decay)
        for copy, buffer in zip(self.generator_ema.buffers(), self.generator.buffers(), strict=True):
            copy.copy_(buffer)

    def configure_optimizers(self) -> Any:
        """Discriminator's and generator's optimizers and schedules, each counted in batches."""
        trainer = self.trainer
        total_steps = int(trainer.estimated_stepping_batches)
        if trainer.max_steps > 0:
            total_steps = min(total_steps, trainer.max_steps // 2)  # Lightning counts the steps of both optimizers
        discriminator = nn.ModuleList([self.encoder, self.to_logit])
        pairs = [
            self.optim.build(discriminator, total_steps=total_steps),
            self.generator_optim.build(self.generator, total_steps=total_steps),
        ]
        return [optimizer for optimizer, _ in pairs], [schedule for _, schedule in pairs]

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Images of the averaged generator, shape (N, C, H, W) in [0, 1]."""
        return self.generate(self.generator_ema, self.latents(num_samples, generator))

    def decode(self, z: Tensor) -> Tensor:
        """Images of the averaged generator from latents (B, K)."""
        return self.generate(self.generator_ema, z)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """The discriminator's features, samples, and images of latents."""
        return {
            **super().capabilities(),
            "sample": self.in_eval_mode(torch.no_grad()(self.sample)),
            "decode": self.in_eval_mode(torch.no_grad()(self.decode)),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Samples from the same latents at every step."""
        fixed = torch.Generator(self.device).manual_seed(0)
        samples = self.in_eval_mode(self.sample)(80, fixed)
        return {"samples": ImageGrid(images=samples.unflatten(0, (5, 16)))}
