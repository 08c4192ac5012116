from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.simsiam import SimSiam
from ssl_lab.optim import SGD


def make():
    encoder = ConvNet(IMAGES, widths=(8, 16))
    return SimSiam(encoder, SGD(), FixedViews(), hidden_dim=16, projection_dim=8, predictor_hidden_dim=4)


batch = images
