import pytest
import torch
from torch import nn

from ssl_lab.encoders.sngan import SNGANEncoder
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec


def spec(*shape):
    return ImageSpec(shape=shape, mean=(0.5,) * shape[0], std=(0.3,) * shape[0])


@pytest.mark.parametrize(
    ("shape", "widths", "last_side"),
    [
        ((3, 32, 32), [128] * 4, 8),
        ((1, 28, 28), [128] * 4, 7),
        ((1, 8, 8), [128] * 4, 2),
        ((3, 48, 48), [64, 128, 256, 512, 1024], 3),
        ((3, 64, 64), [64, 128, 256, 512, 1024], 4),
    ],
)
def test_has_the_papers_widths_and_halvings(shape, widths, last_side):
    with torch.device("meta"):
        encoder = SNGANEncoder(spec(*shape), spectral_norm=False)
        activations = encoder.blocks(torch.zeros(2, *shape))
    assert [
        block.residual[-2 if isinstance(block.residual[-1], nn.AvgPool2d) else -1].out_channels
        for block in encoder.blocks
    ] == widths
    assert activations.shape == (2, widths[-1], last_side, last_side)
    assert encoder.embed_dim == widths[-1]


def test_has_the_parameters_of_the_paper_at_32_pixels():
    encoder = SNGANEncoder(spec(3, 32, 32), spectral_norm=False)
    three, one = 128 * 128 * 9 + 128, 128 * 128 + 128
    expected = (3 * 128 * 9 + 128 + three + 3 * 128 + 128) + (2 * three + one) + 2 * 2 * three
    assert sum(p.numel() for p in encoder.parameters()) == expected


def test_a_halving_block_equals_the_papers_order_of_layers():
    block = SNGANEncoder(spec(1, 8, 8), widths=[4, 6], spectral_norm=False).blocks[1].double()
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    pool = nn.functional.avg_pool2d
    conv_a, conv_b = block.residual[1], block.residual[3]
    expected = pool(conv_b(conv_a(x.relu()).relu()), 2) + pool(block.shortcut[1](x), 2)
    torch.testing.assert_close(block(x), expected)


def test_every_kernel_has_a_largest_singular_value_of_one():
    encoder = SNGANEncoder(spec(1, 8, 8), widths=[4, 6, 6], num_halvings=1)
    for _ in range(300):  # each pass in training mode is one step of the power iteration
        encoder(torch.rand(2, 1, 8, 8))
    kernels = [m.weight.flatten(1) for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(kernels) == 2 + 1 + 2 + 1 + 2
    for kernel in kernels:
        assert torch.linalg.matrix_norm(kernel, 2).item() == pytest.approx(1, rel=1e-3)


def test_features_sum_over_positions():
    encoder = SNGANEncoder(spec(1, 8, 8), widths=[4, 6]).eval()
    images = torch.rand(3, 1, 8, 8)
    activations = encoder.blocks((images - encoder.mean) / encoder.std)
    torch.testing.assert_close(encoder.embed({"image": images}), activations.clamp(min=0).sum((2, 3)))


def test_refuses_images_that_are_too_small():
    with pytest.raises(ValueError, match="3 times in 4 blocks, found images of 6x6"):
        SNGANEncoder(spec(1, 6, 6), num_halvings=3)
    with pytest.raises(ValueError, match="takes images"):
        SNGANEncoder(TextSpec(length=64, vocab_size=8))
