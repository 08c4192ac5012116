from ranks.fixed import IMAGES, FixedMultiCrop, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.swav import SwAV
from ssl_lab.optim import SGD


def make():
    return SwAV(
        ConvNet(IMAGES, widths=(8, 16)),
        SGD(),
        FixedMultiCrop(),
        num_prototypes=12,
        queue_size=8,
        queue_start_fraction=0.3,  # from the second of three steps on
        freeze_prototypes_fraction=0.5,  # the first two of three steps
        hidden_dim=16,
        projection_dim=8,
    )


batch = images
