import pytest
import torch
from torch import nn

from ssl_lab.generators.conditional import ConditionalBatchNorm2d
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.generators.resnet import ResNetGenerator
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Classes

SPEC = ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.3,), targets={"label": Classes(number=3)})


def test_scale_and_shift_are_those_of_the_class():
    norm = ConditionalBatchNorm2d(4, 3).double()
    plain = nn.BatchNorm2d(4, affine=False).double()
    x, label = torch.randn(5, 4, 2, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(norm(x, label), plain(x))  # every class starts as the plain layer
    nn.init.normal_(norm.scale.weight)
    nn.init.normal_(norm.shift.weight)
    found, normalised = norm(x, label), plain(x)
    for row, k in enumerate(label):
        scale, shift = norm.scale.weight[k].view(4, 1, 1), norm.shift.weight[k].view(4, 1, 1)
        torch.testing.assert_close(found[row], scale * normalised[row] + shift)


@pytest.mark.parametrize(
    "make", [lambda **s: DCGANGenerator(SPEC, width=4, **s), lambda **s: ResNetGenerator(SPEC, widths=[4, 4], **s)]
)
def test_a_conditional_generator_starts_as_the_plain_one_and_learns_its_classes_apart(make):
    torch.manual_seed(0)
    plain = make(latent_dim=5)
    torch.manual_seed(0)
    conditional = make(latent_dim=5, num_classes=3)
    named = dict(plain.named_parameters())
    for name, p in conditional.named_parameters():
        if name in named:
            p.data.copy_(named[name].data)
    z = torch.randn(4, 5)
    torch.testing.assert_close(conditional(z, torch.tensor([0, 1, 2, 0])), plain(z))
    conditional(z, torch.tensor([0, 2, 2, 0])).square().sum().backward()
    scales = [m.scale.weight.grad for m in conditional.modules() if isinstance(m, ConditionalBatchNorm2d)]
    for gradient in scales:
        assert gradient[0].abs().sum() > 0 and gradient[2].abs().sum() > 0
        assert gradient[1].abs().sum() == 0
