from functools import partial

import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images
from torch import nn

from ssl_lab.encoders.sngan import SNGANEncoder
from ssl_lab.generators.resnet import ResNetGenerator
from ssl_lab.losses.adversarial import wasserstein
from ssl_lab.methods.gan import GAN
from ssl_lab.optim import SGD

own_rows = [slice(0, NUM_SAMPLES)]


class Mirror(nn.Module):
    """An augmentation that depends on the image alone."""

    def forward(self, images):
        return 0.8 * images.flip(3) + 0.1


def rows_of(draw, *shape):
    """Each rank takes its rows of the next joined noise."""
    generator = torch.Generator().manual_seed(2)
    return lambda num_samples: draw(NUM_SAMPLES, *shape, generator=generator, dtype=torch.float64)[own_rows[0]]


def make():
    optim = SGD(lr=0.02, warmup_fraction=0.0)
    encoder, generator = SNGANEncoder(IMAGES, widths=(8, 8)), partial(ResNetGenerator, widths=(8, 8))
    settings = {"conditional": True, "gradient_penalty": 10.0, "r1": 1.0, "r1_interval": 2, "latent_dim": 4}
    method = GAN(encoder, optim, None, generator, wasserstein(), Mirror(), **settings)
    method.latents, method.shares = rows_of(torch.randn, 4), rows_of(torch.rand)
    return method


batch = images


def before_step(rows):
    """Which rows are this process's."""
    own_rows[0] = rows
