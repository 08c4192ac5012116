import pytest
import torch
from torch import nn

from ssl_lab.generators.resnet import ResNetGenerator
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Classes


def spec(*shape):
    return ImageSpec(shape=shape, mean=(0.5,) * shape[0], std=(0.3,) * shape[0], targets={"label": Classes(number=3)})


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((3, 32, 32), [256] * 4),
        ((1, 28, 28), [256] * 3),
        ((1, 8, 8), [256] * 2),
        ((3, 48, 48), [512, 256, 128, 64]),
        ((3, 64, 64), [1024, 512, 256, 128, 64]),
    ],
)
def test_has_the_papers_widths(shape, widths):
    with torch.device("meta"):
        generator = ResNetGenerator(spec(*shape), latent_dim=5)
        assert generator(torch.zeros(2, 5)).shape == (2, *shape)
    convolutions = [block.residual[3] for block in generator.blocks]
    assert [convolutions[0].in_channels, *[c.out_channels for c in convolutions]] == widths


def test_has_the_parameters_of_the_paper_at_32_pixels():
    generator = ResNetGenerator(spec(3, 32, 32), latent_dim=128)
    block = 2 * (256 * 256 * 9 + 256) + 256 * 256 + 256 + 2 * 2 * 256
    expected = 128 * 4096 + 4096 + 3 * block + 2 * 256 + 256 * 3 * 9 + 3
    assert sum(p.numel() for p in generator.parameters()) == expected


def test_takes_any_size_that_its_blocks_end_at():
    generator = ResNetGenerator(spec(2, 12, 20), latent_dim=5, widths=[8, 4, 4])
    assert generator(torch.randn(2, 5)).shape == (2, 2, 12, 20)
    with pytest.raises(ValueError, match="3 times with widths .* of 12x20"):
        ResNetGenerator(spec(2, 12, 20), latent_dim=5, widths=[8, 8, 8, 4])
    with pytest.raises(ValueError, match="of 9x9"):
        ResNetGenerator(spec(1, 9, 9), latent_dim=5)


def test_a_block_equals_the_papers_order_of_layers():
    block = ResNetGenerator(spec(1, 8, 8), latent_dim=5, widths=[6, 4]).blocks[0].double()
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    up = nn.functional.interpolate
    norm_a, conv_a, norm_b, conv_b = (block.residual[k] for k in (0, 3, 4, 6))
    expected = conv_b(norm_b(conv_a(up(norm_a(x).relu(), scale_factor=2))).relu()) + block.shortcut[0](
        up(x, scale_factor=2)
    )
    torch.testing.assert_close(block(x, None), expected)
