import math

import pytest
import timm.layers
import torch

from ssl_lab.encoders.vit import ViT, patchify, sincos_positions, take, unpatchify
from ssl_lab.encoders.vit_attention import Attention
from ssl_lab.modalities.image import ImageSpec


def images(channels=3, height=32, width=32):
    return ImageSpec(shape=(channels, height, width), mean=(0.4,) * channels, std=(0.3,) * channels)


def pixels(spec, batch=3):
    return torch.randint(0, 256, (batch, *spec.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def small(spec, **settings):
    torch.manual_seed(0)
    return ViT(spec, **{"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, **settings})


@pytest.mark.parametrize(
    ("shape", "patch_size"),
    [((1, 28, 28), 7), ((3, 32, 32), 4), ((3, 64, 64), 8), ((3, 96, 48), 16), ((5, 224, 224), 32)],
)
def test_sizes_and_channels_come_from_the_data(shape, patch_size):
    spec = images(*shape)
    encoder = small(spec, patch_size=patch_size)
    length = (shape[1] // patch_size) * (shape[2] // patch_size)
    assert encoder.num_patches == length
    assert encoder(pixels(spec)).shape == (3, 1 + length, 32)
    assert encoder.embed({"image": pixels(spec)}).shape == (3, 32)


def test_a_patch_is_a_square_of_the_image_row_by_row():
    x = torch.randn(2, 3, 8, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 6, 48)
    for i in range(6):
        top, left = 4 * (i // 3), 4 * (i % 3)
        assert torch.equal(patches[:, i].view(2, 3, 4, 4), x[:, :, top : top + 4, left : left + 4])
    assert torch.equal(unpatchify(patches, 4, (3, 8, 12)), x)


def test_attention_is_timms_with_the_same_weights():
    torch.manual_seed(0)
    own, theirs = Attention(32, num_heads=4, qkv_bias=True), timm.layers.Attention(32, num_heads=4, qkv_bias=True)
    theirs.load_state_dict(own.state_dict())
    weights = torch.randn(2, 9, 32)
    outputs, gradients = [], []
    for layer in (own, theirs):
        x = torch.linspace(-2, 2, 576).sin().view(2, 9, 32).requires_grad_()
        outputs.append(layer(x))
        gradients.append(torch.autograd.grad((outputs[-1] * weights).sum(), (x, layer.qkv.weight)))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_the_first_layer_is_a_strided_convolution():
    spec = images()
    encoder = small(spec)
    x = torch.randn(2, 3, 32, 32)
    kernel = encoder.patch_embed.weight.view(32, 3, 4, 4)
    convolved = torch.nn.functional.conv2d(x, kernel, encoder.patch_embed.bias, stride=4).flatten(2).mT
    torch.testing.assert_close(encoder.patch_embed(patchify(x, 4)), convolved, rtol=1e-4, atol=1e-5)


def test_positions_are_sines_and_cosines_of_row_and_column():
    dim, (rows, columns) = 16, (3, 5)
    found = sincos_positions((rows, columns), dim)
    frequencies = [10000 ** -(k / (dim // 4)) for k in range(dim // 4)]
    for i in range(rows * columns):
        waves = [f(n * w) for n in divmod(i, columns) for f in (math.sin, math.cos) for w in frequencies]
        assert sorted(found[i].tolist()) == pytest.approx(sorted(waves), abs=1e-5)
    assert len(found.unique(dim=0)) == rows * columns


def test_all_patches_in_any_order_give_the_tokens_of_the_whole_image():
    spec = images(1, 28, 28)
    encoder = small(spec).double()
    x = pixels(spec)
    order = torch.rand(3, 49, generator=torch.Generator().manual_seed(1)).argsort(1)
    whole, shuffled = encoder(x), encoder(x, order)
    torch.testing.assert_close(shuffled[:, 0], whole[:, 0])
    torch.testing.assert_close(shuffled[:, 1:], take(whole[:, 1:], order))
    torch.testing.assert_close(shuffled[:, 1:].gather(1, order.argsort(1)[..., None].expand(-1, -1, 32)), whole[:, 1:])


def test_tokens_depend_on_the_kept_patches_alone():
    spec = images(1, 28, 28)
    encoder = small(spec)
    kept = torch.tensor([[0, 8, 20], [48, 3, 11], [7, 6, 5]])
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    others = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    inside = torch.zeros(3, 49, 1).scatter(1, kept[..., None], 1).expand(-1, -1, 16)
    mixed = torch.where(unpatchify(inside, 4, (1, 28, 28)) > 0, x, others)
    assert torch.equal(encoder(x, kept), encoder(mixed, kept))
    assert not torch.allclose(encoder(x), encoder(mixed))


@pytest.mark.parametrize(("pooling", "expected"), [("mean", lambda t: t[:, 1:].mean(1)), ("class", lambda t: t[:, 0])])
def test_pooling(pooling, expected):
    spec = images()
    encoder = small(spec, pooling=pooling)
    x = pixels(spec)
    torch.testing.assert_close(encoder.embed({"image": x}), expected(encoder(x)))
    torch.testing.assert_close(encoder.encode((x.float() / 255 - 0.4) / 0.3), encoder.embed({"image": x}))


def test_every_parameter_learns_and_positions_are_none():
    spec = images()
    encoder = small(spec)
    tokens = encoder(pixels(spec), torch.tensor([[0, 1, 2]] * 3))
    (tokens * torch.randn_like(tokens)).sum().backward()
    parameters = dict(encoder.named_parameters())
    assert "positions" not in {**parameters, **encoder.state_dict()}
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for name, p in parameters.items() if "qkv.bias" not in name
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 5}, "images of 32x32 cannot be divided into these"),
        ({"patch_size": 0}, "patches of 0x0"),
        ({"pooling": "max"}, "no pooling 'max'"),
        ({"num_heads": 5}, "2 blocks of 5 heads, 32 wide"),
        ({"depth": 0}, "0 blocks of 4 heads"),
        ({"embed_dim": 30, "num_heads": 5}, "multiple of 4, found 30"),
    ],
)
def test_refuses_what_cannot_be_built(settings, message):
    with pytest.raises(ValueError, match=message):
        small(images(), **settings)


def test_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"built for images of \(3, 32, 32\), found \(3, 24, 32\)"):
        small(images())(pixels(images(height=24)))
