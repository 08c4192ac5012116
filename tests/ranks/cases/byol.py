from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.byol import BYOL
from ssl_lab.optim import SGD


def make():
    return BYOL(ConvNet(IMAGES, widths=(8, 16)), SGD(), FixedViews(), momentum=0.9, hidden_dim=16, projection_dim=8)


batch = images
