from functools import partial

import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import SGD


def make():
    method = VAE(ConvNet(IMAGES, widths=(8, 16)), SGD(), partial(DCGANGenerator, width=8), latent_dim=4, min_kl=0.02)
    method.current_beta = lambda: 1.0
    return method


batch = images


def before_step(rows):
    """Each rank takes its rows of one joined noise."""
    noise = torch.randn(NUM_SAMPLES, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.randn_like = lambda x: noise[rows]
