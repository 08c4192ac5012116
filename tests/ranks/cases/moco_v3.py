from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.moco_v3 import MoCoV3
from ssl_lab.optim import SGD


def make():
    return MoCoV3(ConvNet(IMAGES, widths=(8, 16)), SGD(), FixedViews(), momentum=0.9, hidden_dim=16, projection_dim=8)


batch = images
