from functools import partial

import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.methods.aae import AAE
from ssl_lab.optim import SGD


def make():
    decoder = partial(DCGANGenerator, width=8)
    return AAE(ConvNet(IMAGES, widths=(8, 16)), SGD(), decoder, latent_dim=4, hidden_dim=16)


batch = images


def before_step(rows):
    """Each rank takes its rows of one joined noise."""
    noise = torch.randn(NUM_SAMPLES, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.randn_like = lambda x: noise[rows]
