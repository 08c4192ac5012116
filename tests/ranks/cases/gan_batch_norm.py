"""The discriminator's trunk has batch statistics: real and generated images pass it one after the other."""

from functools import partial

import torch
from ranks.cases import gan
from ranks.fixed import IMAGES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.methods.gan import GAN
from ssl_lab.optim import SGD

batch = images
before_step = gan.before_step


def make():
    optim = SGD(lr=0.02, warmup_fraction=0.0)
    method = GAN(
        ConvNet(IMAGES, widths=(4, 8)), optim, None, partial(DCGANGenerator, width=4), conditional=True, latent_dim=4
    )
    method.latents = gan.rows_of(torch.randn, 4)
    return method
