from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.barlow_twins import BarlowTwins
from ssl_lab.optim import SGD


def make():
    encoder = ConvNet(IMAGES, widths=(8, 16))
    return BarlowTwins(encoder, SGD(), FixedViews(), loss_scale=0.1, hidden_dim=16, projection_dim=8)


batch = images
