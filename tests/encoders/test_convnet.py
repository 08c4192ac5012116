"""The small convolutional network."""

import pytest
import torch

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.modalities.image import ImageSpec


def spec(size):
    return ImageSpec(shape=(3, size, size), mean=(0.4,) * 3, std=(0.2,) * 3)


def test_a_stride_shrinks_all_maps_of_a_large_image():
    encoder = ConvNet(spec(64), widths=(4, 8), stride=4)
    maps = encoder.encode_maps(torch.rand(2, 3, 64, 64))
    assert [tuple(each.shape) for each in maps] == [(2, 4, 16, 16), (2, 8, 8, 8)]
    assert encoder.strides == (4, 8)


def test_the_first_convolution_sees_every_pixel_at_any_stride():
    encoder = ConvNet(spec(32), widths=(4,), stride=4)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder.stages[0][0](x).square().sum().backward()
    assert (x.grad != 0).all()


def test_too_small_images_and_strides_are_refused():
    with pytest.raises(ValueError, match=r"at least 32 pixels, found 16x16.*lower encoder.stride"):
        ConvNet(spec(16), widths=(4, 8, 16, 32), stride=4)
    with pytest.raises(ValueError, match=r"encoder.stride=0"):
        ConvNet(spec(16), widths=(4,), stride=0)
