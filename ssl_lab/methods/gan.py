"""Generative adversarial networks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from ssl_lab.generators.base import NewGenerator
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.heads import has_batch_statistics
from ssl_lab.losses import adversarial
from ssl_lab.losses.adversarial import AdversarialLoss, non_saturating
from ssl_lab.methods.parts.alternating import AlternatingMethod, Player
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, ImageGrid, Picture, Spec


@final
class GAN(AlternatingMethod):
    r"""A generator against a discriminator whose trunk is the encoder, by turns.

    The discriminator steps on every batch, the generator on every ``num_critic_steps``-th; each schedule counts its own
    network's steps. Real and generated images pass a trunk with batch normalisation one after the other. Samples come from
    an exponential moving average of the generator.

    With ``conditional`` the generator is given classes, and the discriminator's logit is a projection on the class:

    .. math:: D(x, y) = w \cdot \phi(x) + b + v_y \cdot \phi(x)

    Generated images are given the classes of the batch. Where the trunk is spectrally normalised, w and v are as well.

    Penalties are taken with respect to pixels in [-1, 1], the papers' scale, at what the discriminator is shown: after
    ``augment``. R1 comes in every ``r1_interval``-th step of the discriminator and weighs so many times as much; it is added
    to that step's loss (StyleGAN2 gives it a step of its own).

    Args:
        encoder: Trunk of the discriminator; its features are the representation.
        optim: Optimizer and schedule of the discriminator, and of the generator unless ``generator_optim`` is given.
        generator_optim: Optimizer and schedule of the generator.
        generator: The network from latents to images, DCGAN's by default.
        loss: The adversarial loss, ``non_saturating()`` by default.
        augment: Changes real and generated images before the discriminator sees them, differentiably.
        latent_dim: Width K of z.
        conditional: Whether classes are given to both networks.
        num_critic_steps: Steps of the discriminator, each on a batch of its own, for one of the generator.
        gradient_penalty: Weight of the squared distance of slopes from 1 between real and generated images.
        r1: Weight gamma of R1, the squared slope at real images times gamma / 2.
        r1_interval: Steps of the discriminator from one R1 to the next.
        ema_decay: Decay of the generator's moving average per step of the generator; 0 samples from the generator itself.

    Raises:
        ValueError: If a setting makes no sense, or does not fit the networks or the data.

    References:
        Goodfellow et al., Generative Adversarial Networks (2014). arXiv:1406.2661
        Radford et al., DCGAN (2015). arXiv:1511.06434
        Gulrajani et al., Improved Training of Wasserstein GANs (2017). arXiv:1704.00028
        Miyato and Koyama, cGANs with Projection Discriminator (2018), eq. 3. arXiv:1802.05637
        Karras et al., StyleGAN2 (2019), appendix B: lazy regularisation. arXiv:1912.04958
    """

    takes: ClassVar[type[Spec] | None] = ImageSpec

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        generator_optim: Optim | None = None,
        generator: NewGenerator = DCGANGenerator,
        loss: AdversarialLoss | None = None,
        augment: nn.Module | None = None,
        *,
        latent_dim: int = 64,
        conditional: bool = False,
        num_critic_steps: int = 1,
        gradient_penalty: float = 0.0,
        r1: float = 0.0,
        r1_interval: int = 16,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__(encoder, optim)
        if not 0 <= ema_decay < 1:
            raise ValueError(f"method.ema_decay lies in [0, 1), found {ema_decay}.")
        if num_critic_steps < 1 or r1_interval < 1 or gradient_penalty < 0 or r1 < 0:
            raise ValueError(
                "GAN needs num_critic_steps and r1_interval of at least 1 and penalties of at least 0, found "
                f"num_critic_steps={num_critic_steps}, r1_interval={r1_interval}, gradient_penalty={gradient_penalty} and "
                f"r1={r1}."
            )
        self.generator_optim = generator_optim or optim
        self.loss = loss or non_saturating()
        self.augment = augment
        self.num_critic_steps = num_critic_steps
        self.gradient_penalty = gradient_penalty
        self.r1 = r1
        self.r1_interval = r1_interval
        self.ema_decay = ema_decay
        self.num_classes = self._num_classes(generator) if conditional else None
        self.uses_labels = conditional  # type: ignore[misc]  # a class variable elsewhere
        classes = {"num_classes": self.num_classes} if conditional else {}
        self.generator = generator(encoder.spec, latent_dim=latent_dim, **classes)
        self.generator_ema = deepcopy(self.generator).requires_grad_(False)
        self.to_logit = nn.Linear(encoder.embed_dim, 1)
        self.class_vectors = nn.Embedding(self.num_classes, encoder.embed_dim) if self.num_classes is not None else None
        if any(parametrize.is_parametrized(module) for module in encoder.modules()):
            for last in filter(None, (self.to_logit, self.class_vectors)):
                spectral_norm(last)
        self._check_penalties()

    def players(self) -> Mapping[str, Player]:
        """The discriminator, which steps on every batch, and the generator."""
        discriminator = tuple(filter(None, (self.encoder, self.to_logit, self.class_vectors)))
        return {
            "discriminator": Player(discriminator, self.optim),
            "generator": Player((self.generator,), self.generator_optim, self.num_critic_steps),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """A step of the discriminator, then one of the generator against it if it is its turn."""
        x, label = as_float(batch["image"]), self.labels(batch, check=batch_idx == 0)
        num_steps = self.global_step  # of the discriminator

        with torch.no_grad():
            fake = self.generate(self.generator, self.latents(len(x)), label)
        shown = self.augmented(torch.cat([x, fake]))
        real_logits, fake_logits = self.tell_apart(shown, label)
        discriminator_loss = self.loss.discriminator(real_logits, fake_logits)
        penalties = self.penalties(shown, label, with_r1=num_steps % self.r1_interval == 0)
        loss = torch.stack([discriminator_loss, *penalties.values()]).sum()
        self.update("discriminator", loss)
        parts = {"discriminator": discriminator_loss, **penalties}

        if (num_steps + 1) % self.num_critic_steps == 0:
            fake = self.augmented(self.generate(self.generator, self.latents(len(x)), label))
            parts["generator"] = self.loss.generator(self.discriminate(fake, label))
            self.update("generator", parts["generator"])
            self._update_ema((num_steps + 1) // self.num_critic_steps)
            loss = loss + parts["generator"]

        self.log_losses(loss, **parts, real_logit=real_logits.mean(), fake_logit=fake_logits.mean())

    def penalties(self, images: Tensor, label: Tensor | None, *, with_r1: bool) -> dict[str, Tensor]:
        """The discriminator's weighted penalties by name, at B real and then B generated images (2B, C, H, W) in [0, 1]."""

        def critic(scaled: Tensor) -> Tensor:
            return self.discriminate((scaled + 1) / 2, label)

        real, fake = (2 * images - 1).chunk(2)
        penalties = {}
        if self.gradient_penalty > 0:
            distance = adversarial.gradient_penalty(critic, real, fake, self.shares(len(real)))
            penalties["gradient_penalty"] = self.gradient_penalty * distance
        if self.r1 > 0 and with_r1:
            penalties["r1"] = self.r1_interval * self.r1 / 2 * adversarial.r1(critic, real)
        return penalties

    def tell_apart(self, images: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B,) of B real images and (B,) of the B generated images behind them, (2B, C, H, W), with classes (B,).

        Where the trunk has batch statistics each kind passes by itself: in its own step the generator is judged by the
        statistics of generated images alone, and would be moved against another discriminator than the one that learns.
        """
        if has_batch_statistics(self.encoder):
            real, fake = (self.discriminate(part, label) for part in images.chunk(2))
            return real, fake
        both = label.repeat(2) if label is not None else None
        real, fake = self.discriminate(images, both).chunk(2)
        return real, fake

    def discriminate(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits (B,), high where the image looks real, and like its class where one is given."""
        h = self.encoder.embed({"image": x})
        logits: Tensor = self.to_logit(h).squeeze(1)
        return logits if self.class_vectors is None else logits + (self.class_vectors(label) * h).sum(1)

    def generate(self, generator: nn.Module, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] from latents (B, K), and classes int64 (B,) where it is conditional."""
        out: Tensor = generator(z) if label is None else generator(z, label)
        return torch.sigmoid(out.to(torch.promote_types(out.dtype, torch.float32)))

    def augmented(self, images: Tensor) -> Tensor:
        """Augment images (B, C, H, W) in [0, 1] for the discriminator."""
        return images if self.augment is None else self.augment(images)

    def labels(self, batch: Batch, *, check: bool) -> Tensor | None:
        """Classes int64 (B,) of the batch; None unless conditional.

        Raises:
            ValueError: If classes are wanted and missing; of single images if it is to ``check``, which waits for the device.
        """
        if self.num_classes is None:
            return None
        if "label" not in batch or (check and bool((batch["label"] < 0).any())):
            found = "some have none" if "label" in batch else f"batches of this data hold only {sorted(batch)}"
            raise ValueError(
                f"GAN with conditional=true reads the class of every image, but {found}. Choose a data= whose pretrain "
                "split is labelled, or method.conditional=false."
            )
        return batch["label"]

    def latents(
        self, num_samples: int, generator: torch.Generator | None = None, truncation: float = math.inf
    ) -> Tensor:
        """Standard normal latents (N, K), none beyond ``truncation`` either way."""
        shape = (num_samples, self.generator.latent_dim)
        if truncation == math.inf:
            return torch.randn(shape, device=self.device, generator=generator)
        # A normal number within bounds has a uniform quantile within theirs.
        quantile = 2 * torch.rand(shape, device=self.device, generator=generator) - 1
        z = math.sqrt(2) * torch.erfinv(math.erf(truncation / math.sqrt(2)) * quantile)
        return z.clamp(-truncation, truncation)

    def shares(self, num_samples: int) -> Tensor:
        """Where between a real and a generated image a slope is taken, uniform in [0, 1), (N,)."""
        return torch.rand(num_samples, device=self.device)

    @torch.no_grad()
    def _update_ema(self, num_steps: int) -> None:
        # While few steps are done the average is young: decay rises as (1 + n) / (10 + n), as in TensorFlow's EMA.
        decay = min(self.ema_decay, (1 + num_steps) / (10 + num_steps))
        average: list[Tensor] = list(self.generator_ema.parameters())
        torch._foreach_lerp_(average, list(self.generator.parameters()), 1 - decay)
        for copy, buffer in zip(self.generator_ema.buffers(), self.generator.buffers(), strict=True):
            copy.copy_(buffer)

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        *,
        label: Tensor | None = None,
        truncation: float = math.inf,
    ) -> Tensor:
        """Images of the averaged generator, shape (N, C, H, W) in [0, 1].

        Args:
            num_samples: Number of images N.
            generator: Source of randomness.
            label: Classes int64 (N,) of a conditional GAN; random ones if None.
            truncation: Largest magnitude of a latent, which trades variety for typical images.

        Raises:
            ValueError: If the truncation is not positive, or the GAN knows no classes.
        """
        if not truncation > 0:
            raise ValueError(f"Truncation of latents needs a positive number, found truncation={truncation}.")
        z = self.latents(num_samples, generator, truncation)
        if label is None and self.num_classes is not None:
            label = torch.randint(self.num_classes, (num_samples,), device=self.device, generator=generator)
        return self.decode(z, label)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of the averaged generator from latents (B, K).

        Of a conditional GAN they show the classes int64 (B,), or the first class if None.

        Raises:
            ValueError: If classes are given, but the GAN knows none.
        """
        if label is not None and self.num_classes is None:
            raise ValueError("This GAN was trained without classes, so none can be asked for. Leave label out.")
        if label is None and self.num_classes is not None:
            label = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return self.generate(self.generator_ema, z, label)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """The discriminator's features, samples, and images of latents."""
        return {
            **super().capabilities(),
            "sample": self.in_eval_mode(torch.no_grad()(self.sample)),
            "decode": self.in_eval_mode(torch.no_grad()(self.decode)),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Samples from the same latents at every step, each column of one class where there are classes."""
        fixed = torch.Generator(self.device).manual_seed(0)
        columns = torch.arange(16, device=self.device)
        label = (columns % self.num_classes).repeat(5) if self.num_classes is not None else None
        samples = self.in_eval_mode(self.sample)(80, fixed, label=label)
        return {"samples": ImageGrid(images=samples.unflatten(0, (5, 16)), caption=CAPTIONS["samples"])}

    def on_fit_start(self) -> None:
        """Refuse layers without second derivatives, and all settings that alternating methods refuse."""
        super().on_fit_start()
        if (self.gradient_penalty > 0 or self.r1 > 0) and self.encoder._compiled_call_impl is not None:
            raise ValueError(
                f"GAN with gradient_penalty={self.gradient_penalty} and r1={self.r1} needs derivatives of second order, "
                "which a compiled encoder does not have. Use compile=false."
            )

    def _check_penalties(self) -> None:
        if has_batch_statistics(self.encoder) and (self.gradient_penalty > 0 or self.r1 > 0):
            raise ValueError(
                f"GAN with gradient_penalty={self.gradient_penalty} and r1={self.r1} takes the slope at each image, but "
                f"batch normalisation in {type(self.encoder).__name__} ties images together. Use encoder=sngan or "
                "encoder=dcgan with spectral_norm=true, or no penalty."
            )

    def _num_classes(self, generator: NewGenerator) -> int:
        spec = self.encoder.spec
        if spec.num_classes is None:
            raise ValueError(
                "GAN with conditional=true needs the classes of images, but the data has no labels. Choose labelled data, or "
                "method.conditional=false."
            )
        if "num_classes" not in inspect.signature(generator).parameters:
            raise ValueError(
                f"GAN with conditional=true needs a generator that knows classes, but {generator} takes no num_classes. "
                "Choose generator@method.generator=dcgan or resnet, or method.conditional=false."
            )
        return spec.num_classes
