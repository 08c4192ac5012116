from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.nnclr import NNCLR
from ssl_lab.optim import SGD


def make():
    encoder = ConvNet(IMAGES, widths=(8, 16))
    settings = {"queue_size": 40, "hidden_dim": 16, "projection_dim": 8, "predictor_hidden_dim": 16}
    return NNCLR(encoder, SGD(), FixedViews(), **settings)


batch = images
