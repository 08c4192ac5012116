from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.moco_v2 import MoCoV2
from ssl_lab.optim import SGD


def make():
    encoder = ConvNet(IMAGES, widths=(8, 16))
    settings = {"queue_size": 40, "momentum": 0.9, "hidden_dim": 16, "projection_dim": 8}
    return MoCoV2(encoder, SGD(), FixedViews(), **settings)


batch = images
