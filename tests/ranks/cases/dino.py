from ranks.fixed import IMAGES, FixedMultiCrop, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.dino import DINO
from ssl_lab.optim import SGD


def make():
    return DINO(
        ConvNet(IMAGES, widths=(8, 16)),
        SGD(),
        FixedMultiCrop(),
        num_prototypes=12,
        momentum=0.9,
        temperature_warmup_fraction=0.5,
        freeze_prototypes_fraction=0.5,  # the first two of three steps
        hidden_dim=16,
        hidden_norm=True,
        projection_dim=8,
    )


batch = images
