import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from ssl_lab.pretext import colour

FUNCTIONS = [
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
]


def images(channels=3, batch=24):
    """Noise, and plain patches of grey and of the six corners of the hue hexagon."""
    x = torch.rand(batch, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[0.5] * 3, [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0.0] * 3])
    x[:8, :, :4] = corners[:, :channels, None, None]
    return x


def amounts(batch=24):
    uniform = torch.rand(batch, 4, generator=torch.Generator().manual_seed(1))
    return torch.cat([0.2 + 1.6 * uniform[:, :3], uniform[:, 3:] - 0.5], 1)


def one_by_one(x, values, order):
    """torchvision's functions on one image at a time."""
    out = []
    for image, row, changes in zip(x, values.tolist(), order.tolist(), strict=True):
        for change in changes:
            image = FUNCTIONS[change](image, row[change])
        out.append(image)
    return torch.stack(out)


def jitter(x, values, order):
    """Ours, from permutations of all four changes."""
    place = (order == colour.HUE).long().argmax(1)
    blends = order[order != colour.HUE].view(len(order), 3)
    return colour.color_jitter(x, values, blends, [(place == k).nonzero().squeeze(1) for k in range(4)])


@pytest.mark.parametrize("change", [colour.BRIGHTNESS, colour.CONTRAST, colour.SATURATION, colour.HUE])
def test_each_change_alone_equals_torchvision(change):
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(24, 1)
    neutral[:, change] = amounts()[:, change]
    order = torch.arange(4).repeat(24, 1)
    expected = one_by_one(images(), neutral, torch.full((24, 1), change))
    torch.testing.assert_close(jitter(images(), neutral, order), expected, atol=1e-5, rtol=0)


def test_every_order_equals_torchvision():
    order = torch.cartesian_prod(*[torch.arange(4)] * 4)
    order = order[order.sort(1).values.eq(torch.arange(4)).all(1)]
    assert len(order) == 24
    expected = one_by_one(images(), amounts(), order)
    torch.testing.assert_close(jitter(images(), amounts(), order), expected, atol=1e-5, rtol=0)


def test_grey_images_change_in_brightness_and_contrast():
    order = torch.tensor([[0, 1], [1, 0]]).repeat(12, 1)
    x, values = images(channels=1), amounts()[:, :2]
    torch.testing.assert_close(colour.color_jitter(x, values, order), one_by_one(x, values, order), atol=1e-5, rtol=0)


def test_full_turns_of_the_hue_change_nothing():
    for turn in (-1.0, 0.0, 1.0):
        torch.testing.assert_close(colour.adjust_hue(images(), torch.full((24,), turn)), images(), atol=2e-6, rtol=0)


def test_grey_and_solarize_equal_torchvision():
    x = images()
    torch.testing.assert_close(colour.to_grey(x), reference.rgb_to_grayscale(x), atol=1e-6, rtol=0)
    for threshold in (0.0, 0.5, 1.0):
        assert torch.equal(colour.solarize(x, threshold), reference.solarize(x, threshold))


def test_all_changes_have_finite_gradients():
    x = images().requires_grad_()
    jitter(x, amounts(), torch.arange(4).repeat(24, 1)).sum().backward()
    assert torch.isfinite(x.grad).all()
