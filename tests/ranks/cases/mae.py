import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images
from torch import nn

from ssl_lab.encoders.vit import ViT
from ssl_lab.methods.mae import MAE
from ssl_lab.optim import SGD


class FixedMasking(nn.Module):
    """Each rank takes its rows of one joined order of the patches."""

    rows = slice(None)

    def forward(self, batch_size, num_patches, device):
        keys = torch.rand(NUM_SAMPLES, num_patches, generator=torch.Generator().manual_seed(2))
        order = keys.argsort(1)[self.rows]
        return order[:, :4], order[:, 4:]


def make():
    encoder = ViT(IMAGES, patch_size=2, embed_dim=16, depth=2, num_heads=2)
    method = MAE(encoder, SGD(), nn.Identity(), decoder_dim=8, decoder_depth=1, decoder_num_heads=2)
    method.masking = FixedMasking()
    return method


batch = images


def before_step(rows):
    FixedMasking.rows = rows
