import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.optim import SGD
from ssl_lab.tasks.classification import Classification


def make():
    return Classification(ConvNet(IMAGES, widths=(4, 8)), SGD(), label_smoothing=0.1, ema_decay=0.9)


def batch(step):
    """More images without a label on some ranks than on others."""
    found = images(step)
    found["label"][: NUM_SAMPLES // 2 - 1] = -1
    return {**found, "index": torch.arange(NUM_SAMPLES)}
