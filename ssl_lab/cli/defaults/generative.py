"""Settings of generative methods of images.

Quality is the Frechet distance of 2,000 samples on the features of a classifier that sees no samples, less is better, after
30 CPU seconds of one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from hydra.utils import get_class
from omegaconf import DictConfig

from ssl_lab.cli.defaults import images
from ssl_lab.cli.defaults.facts import Choice, Facts
from ssl_lab.methods.gan import GAN
from ssl_lab.methods.parts.autoencoder import LatentAutoencoder
from ssl_lab.methods.parts.variational import Variational
from ssl_lab.modalities.image import ImageSpec

_MOST_VALUES = 3 * 64 * 64
"""Values of an image up to which fully connected layers are cheap."""
_DCGAN = "ssl_lab.generators.dcgan.DCGANGenerator"
_DISCRIMINATOR = "ssl_lab.encoders.dcgan.DCGANEncoder"
_CONVNET = "ssl_lab.encoders.convnet.ConvNet"
_SHORT = 20_000  # steps


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Groups, networks, batch and length that suit the data."""
    if not isinstance(facts.spec, ImageSpec):
        return
    yield from _evaluation(cfg)
    if not images.on_cpu(facts):
        return
    if "generator" in cfg.method:
        yield from _adversarial(facts, cfg)
    elif "decoder" in cfg.method:
        yield from _autoencoder(facts, cfg)
    elif "num_codes" in cfg.method:
        yield from _quantised(facts, cfg)


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Settings that suit a run of so many steps."""
    if not images.on_cpu(facts) or num_steps > _SHORT:
        return
    reason = f"{num_steps:,} steps"
    if "generator" in cfg.method:
        # Samples come from an average of generators. At 0.999 it still holds the first, blank ones of a short run.
        decay = round(min(0.999, max(0.9, 1 - 20 / num_steps)), 4)
        if cfg.method.get("ema_decay", 0) > decay:
            yield Choice(f"method.ema_decay={decay}", reason)
    elif ("decoder" in cfg.method or "num_codes" in cfg.method) and "adversarial_weight" not in cfg.method:
        yield Choice("optim.lr=0.002", reason)


def _evaluation(cfg: DictConfig) -> Iterator[Choice]:
    """Samples and bounds, beside the features that the default judges alone."""
    target = str(cfg.method.get("_target_"))
    kind = get_class(target) if target.startswith("ssl_lab.") else object
    if issubclass(kind, Variational):
        yield Choice("evaluation=vae", "a method that bounds the likelihood of images and draws samples")
    elif issubclass(kind, GAN | LatentAutoencoder):
        yield Choice("evaluation=gan", "a method that draws samples")


def _autoencoder(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Fully connected networks, which see most images in a minute.

    VAE on 8,000 images of MNIST: 918 with a ConvNet of widths 8, 16, 32 and DCGAN's decoder, 389 with layers of 400 and 32
    latents, 254 with these and 10 latents, 247 with 16. pythae's networks (one layer of 512, batch 64, learning rate 1e-3):
    432. On Fashion-MNIST one layer of 512: 118, pythae 138.
    """
    shape = facts.spec.shape
    if prod(shape) > _MOST_VALUES:
        yield from images.convnet(facts, cfg)
        yield from _length(facts, cfg, seen=50_000, batch_size=64)
        return
    reason = f"{_pixels(facts)} on a CPU"
    if cfg.encoder.get("_target_") == _CONVNET and cfg.method.decoder.get("_target_") == _DCGAN:
        yield Choice("encoder=mlp", reason)
        yield Choice("generator@method.decoder=mlp", reason)
        yield Choice("encoder.hidden_dims=[512,256]", reason)
        yield Choice("method.decoder.hidden_dims=[256,512]", reason)
    if shape[0] == 1 and cfg.method.get("latent_dim", 0) > 16:
        yield Choice("method.latent_dim=16", f"grey images of {reason}")
    if "adversarial_weight" in cfg.method:
        yield from _judged_codes(facts, cfg)
    elif (num_samples := min(5, cfg.method.get("num_samples", 1))) > 1:  # 50 in batches of 128 take 0.6 s a step
        yield Choice(f"method.num_samples={num_samples}", "CPU")
        yield from _length(facts, cfg, seen=600_000 // num_samples, batch_size=64)
    else:
        yield from _length(facts, cfg, seen=480_000, batch_size=128)


def _judged_codes(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """A narrow discriminator of codes, and small batches for more steps.

    AAE on 8,000 images of MNIST, 15 to 20 CPU seconds: 1,087 at width 1,000, batch 128 and learning rate 2e-3, 446 with
    these and 1e-3.
    """
    if cfg.method.get("hidden_dim", 0) > 256:
        yield Choice("method.hidden_dim=256", "CPU")
    yield from _length(facts, cfg, seen=250_000, batch_size=64)


def _quantised(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """A narrow ConvNet with a map of a quarter of the sides, and a decoder as narrow: 95 ms for 64 images of MNIST."""
    reason = f"{_pixels(facts)} on a CPU"
    if cfg.encoder.get("_target_") == _CONVNET:
        yield Choice("encoder.widths=[16,32,64]", reason)
    yield Choice("method.decoder_dim=64", reason)
    yield from _length(facts, cfg, seen=40_000, batch_size=64)


def _adversarial(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """DCGAN's networks, a quarter as wide, with one rate for both.

    On 8,000 images of MNIST, after 74 s: 306 at DCGAN's rate of 2e-4; after 113 s: 127 at 4e-4, with digits of all classes,
    the rarest 3.9 % of samples.
    """
    reason = f"{_pixels(facts)} on a CPU"
    even = all(side % 4 == 0 for side in facts.spec.shape[1:])
    if (
        even
        and cfg.method.generator.get("_target_") == _DCGAN
        and cfg.encoder.get("_target_")
        in (
            _CONVNET,
            _DISCRIMINATOR,
        )
    ):
        yield Choice("encoder=dcgan", "a discriminator as strong as DCGAN's generator")
        yield Choice("encoder.width=16", reason)
        yield Choice("method.generator.width=16", reason)
        yield Choice("optim=gan_adam", "equal networks")
        yield Choice("optim.lr=0.0004", "equal networks")
        yield Choice("method.generator_optim=null", "equal networks")
        yield Choice("method.latent_dim=32", reason)
    yield from _length(facts, cfg, seen=190_000, batch_size=64)


def _length(facts: Facts, cfg: DictConfig, *, seen: int, batch_size: int) -> Iterator[Choice]:
    larger = max(1.0, prod(facts.spec.shape[1:]) / 32**2)
    yield from images.length(facts, cfg, images=round(seen / larger), batch_size=batch_size)


def _pixels(facts: Facts) -> str:
    return f"{min(facts.spec.shape[1:])} pixels"
