from ranks.fixed import IMAGES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.vq_vae import VQVAE
from ssl_lab.optim import SGD


def make():
    return VQVAE(
        ConvNet(IMAGES, widths=(8, 16)),
        SGD(),
        num_codes=12,
        code_dim=4,
        decay=0.5,
        restart_share=0.3,  # some codes start again in each step
        decoder_dim=8,
    )


batch = images
