from functools import partial

import pytest
import torch
from ranks.fixed import CAPTIONED, IMAGES, captioned

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.encoders.text_transformer import TextTransformer

IMAGE, TEXT = partial(ConvNet, widths=(8, 16)), partial(TextTransformer, size="tiny")


def test_each_part_is_built_for_its_part_of_the_data():
    encoder = DualEncoder(CAPTIONED, image=IMAGE, text=TEXT).eval()
    assert encoder.image.spec.shape == (1, 8, 8)
    assert encoder.text.spec.shape == (12,)
    batch = captioned(0)
    assert encoder.embed_dim == 16
    assert torch.equal(encoder.embed(batch), encoder.image.embed(batch))


def test_other_data_or_encoders_are_refused():
    with pytest.raises(ValueError, match="DualEncoder takes images with captions, but the data is images"):
        DualEncoder(IMAGES, image=IMAGE, text=TEXT)
    with pytest.raises(ValueError, match="ConvNet takes images, but the data is texts"):
        DualEncoder(CAPTIONED, image=IMAGE, text=IMAGE)
