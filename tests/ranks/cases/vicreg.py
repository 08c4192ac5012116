from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.vicreg import VICReg
from ssl_lab.optim import SGD


def make():
    return VICReg(ConvNet(IMAGES, widths=(8, 16)), SGD(), FixedViews(), hidden_dim=16, projection_dim=8)


batch = images
