from functools import partial

from ranks.fixed import CAPTIONED, captioned
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.clip import CLIP
from ssl_lab.optim import SGD


class FixedCrop(nn.Module):
    def forward(self, images):
        return images.double() / 255


def make():
    text = partial(TextTransformer, size="tiny", dropout=0.0)
    encoder = DualEncoder(CAPTIONED, image=partial(ConvNet, widths=(8, 16)), text=text)
    return CLIP(encoder, SGD(), FixedCrop(), projection_dim=8)


batch = captioned
