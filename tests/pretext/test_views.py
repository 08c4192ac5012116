import math

import pytest
import torch
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from ssl_lab.pretext import colour
from ssl_lab.pretext.base import halves
from ssl_lab.pretext.views import Draw, TwoViews, View, affine_maps, gaussian_blur, warp

OFF = {
    "crop_scale": (1.0, 1.0),
    "flip_prob": 0.0,
    "jitter_prob": 0.0,
    "grayscale_prob": 0.0,
    "blur_prob": 0.0,
    "solarize_prob": 0.0,
}
EVERYTHING = {"rotate_degrees": 15.0, "shear_degrees": 10.0, "translate": 0.1, "solarize_prob": 0.2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(batch=4, channels=3, height=32, width=32):
    return torch.rand(batch, channels, height, width, generator=seeded(7))


def maps(box, *, flip=False, angle=0.0, shear=0.0, aspect=1.0):
    """Affine maps of one image, angles in degrees."""
    one = torch.ones(1)
    return affine_maps(
        torch.tensor([box]),
        flip=one.bool() & flip,
        angle=torch.deg2rad(one * angle),
        shear=torch.deg2rad(one * shear),
        aspect=aspect,
    )


WHOLE = (0.0, 0.0, 1.0, 1.0)


# Geometry


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(0, 0, 24, 40), (3, 5, 12, 20), (9, 1, 7, 30), (8, 16, 8, 8)]
)
@pytest.mark.parametrize("size", [(24, 40), (32, 32), (11, 17)])
def test_crop_equals_resized_crop(top, left, height, width, size):
    x = photos(1, height=24, width=40)
    box = ((2 * left + width) / 40 - 1, (2 * top + height) / 24 - 1, width / 40, height / 24)
    view = warp(x, maps(box, aspect=size[0] / size[1]), size)
    expected = reference.resized_crop(x, top, left, height, width, list(size), antialias=False)
    # At the rim torchvision repeats the crop's edge where we interpolate with the pixels beyond it.
    rim_y, rim_x = (max(0, math.ceil(size[i] / (2 * side) - 0.5)) for i, side in enumerate((height, width)))
    inner = (..., slice(rim_y, size[0] - rim_y), slice(rim_x, size[1] - rim_x))
    torch.testing.assert_close(view[inner], expected[inner], atol=1e-4, rtol=0)


def test_flip_equals_torchvision():
    x = photos(1, height=24, width=40)
    torch.testing.assert_close(
        warp(x, maps(WHOLE, flip=True), (24, 40)), reference.horizontal_flip(x), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("angle", "shear"), [(15.0, 0.0), (-40.0, 0.0), (0.0, 20.0), (0.0, -10.0)])
def test_rotation_and_shear_equal_torchvision(angle, shear):
    x = photos(1, height=24, width=40)
    view = warp(x, maps(WHOLE, angle=-angle, shear=shear, aspect=24 / 40), (24, 40))
    expected = reference.affine(
        x,
        angle=angle,
        translate=[0, 0],
        scale=1.0,
        shear=[shear, 0.0],
        interpolation=reference.InterpolationMode.BILINEAR,
    )
    centre = (..., slice(6, 18), slice(14, 26))  # torchvision fills with black what lies beyond the image
    torch.testing.assert_close(view[centre], expected[centre], atol=1e-4, rtol=0)


def test_a_turn_of_a_square_view_of_a_wide_image_stays_a_turn():
    """A quarter turn of the view is the transposed, mirrored view, whatever the image's shape."""
    x, box = photos(1, height=24, width=40), (0.1, -0.1, 0.5, 0.7)
    upright, turned = (warp(x, maps(box, angle=angle), (16, 16)) for angle in (0.0, 90.0))
    torch.testing.assert_close(turned, torch.rot90(upright, 1, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(960, 960), (960, 1920)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (0.8, 1.25))])
def test_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    crop = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    image = torch.zeros(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [crop.make_params([image]) for _ in range(4000)]
    top, left, h, w = (torch.tensor([p[k] for p in theirs]).float() for k in ("top", "left", "height", "width"))
    ours = Draw(4000, torch.device("cpu"), seeded()).boxes((height, width), scale=scale, ratio=ratio)
    x, y, share_w, share_h = ours.unbind(1)
    ours_h, ours_w = share_h * height, share_w * width
    pairs = [
        (ours_h * ours_w / (height * width), h * w / (height * width)),
        (torch.log(ours_w / ours_h), torch.log(w / h)),
        ((x + 1) / 2, (left + w / 2) / width),
        ((y + 1) / 2, (top + h / 2) / height),
    ]
    for values, reference_values in pairs:
        for q in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert values.quantile(q).item() == pytest.approx(reference_values.quantile(q).item(), abs=0.02)
        assert values.std().item() == pytest.approx(reference_values.std().item(), abs=0.005)
    edges = torch.stack([x.abs() + share_w, y.abs() + share_h])
    assert edges.max() <= 1 + 1e-6


def test_where_no_box_fits_the_largest_permitted_one_is_taken():
    boxes = Draw(5, torch.device("cpu"), seeded()).boxes((10, 40), scale=(0.99, 1.0), ratio=(0.5, 2.0))
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, 0.5, 1.0]]).repeat(5, 1))


def test_translation_shifts_by_a_share_of_the_crop():
    view = View(**OFF | {"crop_scale": (0.25, 0.25), "crop_ratio": (1.0, 1.0), "translate": 0.2})
    fixed = View(**OFF | {"crop_scale": (0.25, 0.25), "crop_ratio": (1.0, 1.0)})
    shifted, plain = (v.draw_maps(Draw(2000, torch.device("cpu"), seeded()), (8, 8), (8, 8)) for v in (view, fixed))
    shift = (shifted - plain)[:, :, 2]
    assert shift.abs().max() <= 0.2 and shift.abs().max() > 0.195  # 0.2 of a side that is 1 in [-1, 1]
    torch.testing.assert_close(shifted[:, :, 0], plain[:, :, 0])


# Blur


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (28, 3), (32, 5), (96, 11)])
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_equals_torchvision(side, kernel, channels):
    x, sigma = photos(4, channels, side, side), torch.tensor([0.1, 0.5, 1.0, 2.0])
    expected = [reference.gaussian_blur(x[i], [kernel, kernel], [sigma[i].item()]) for i in range(4)]
    torch.testing.assert_close(gaussian_blur(x, sigma), torch.stack(expected), atol=1e-5, rtol=0)


# The whole view


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32, 96])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shape_type_and_range(channels, side, dtype):
    x = (photos(6, channels, side, side) * 255).to(torch.uint8)
    x[0], x[1] = 0, 255
    view = View(**EVERYTHING)(x if dtype == torch.uint8 else x.float() / 255, seeded())
    assert view.shape == x.shape and view.dtype == torch.float32
    assert 0 <= view.min() and view.max() <= 1


def test_bytes_and_floats_give_the_same_view():
    x = (photos() * 255).to(torch.uint8)
    view = View(**EVERYTHING)
    assert torch.equal(view(x, seeded()), view(x.float() / 255, seeded()))


def test_size_of_the_view():
    x = photos(3, height=24, width=40)
    assert View()(x, seeded()).shape == (3, 3, 24, 40)
    assert View(size=16)(x, seeded()).shape == (3, 3, 16, 16)


def test_everything_off_is_the_identity():
    x = (photos(5) * 255).to(torch.uint8)
    torch.testing.assert_close(View(**OFF)(x, seeded()), x.float() / 255, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_prob": 1.0},
        {"grayscale_prob": 1.0},
        {"solarize_prob": 1.0},
        {"blur_prob": 1.0, "blur_sigma": (1.0, 1.0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_probability_one_changes_every_image(changes):
    x = photos(6)
    expected = {
        "flip_prob": reference.horizontal_flip,
        "grayscale_prob": lambda x: reference.rgb_to_grayscale(x, 3),
        "solarize_prob": lambda x: reference.solarize(x, 0.5),
        "blur_prob": lambda x: reference.gaussian_blur(x, [5, 5], [1.0, 1.0]),
    }[next(iter(changes))](x)
    torch.testing.assert_close(View(**OFF | changes)(x, seeded()), expected, atol=1e-5, rtol=0)


def test_probabilities_and_amounts_have_their_share():
    """On plain colours every change can be read off the result."""
    x = torch.tensor([0.6, 0.4, 0.2]).view(1, 3, 1, 1).expand(4000, 3, 8, 8)
    only = {name: View(**OFF | {name: 0.3})(x, seeded()) for name in ("jitter_prob", "grayscale_prob")}
    for view in only.values():
        changed = ((view - x).abs().amax((1, 2, 3)) > 1e-5).float().mean().item()
        assert changed == pytest.approx(0.3, abs=0.03)
    settings = {"jitter_prob": 1.0, "brightness": 0.4, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    factors = View(**OFF | settings)(x, seeded())[:, 0, 4, 4] / 0.6
    assert factors.min() >= 0.6 and factors.max() <= 1.4
    assert factors.mean().item() == pytest.approx(1.0, abs=0.02)
    assert factors.std().item() == pytest.approx(0.8 / math.sqrt(12), rel=0.05)


def test_all_orders_of_the_four_changes_are_equally_likely(monkeypatch):
    """A sample's order is that of its blends and the place among them at which its hue turns."""
    calls = []
    monkeypatch.setattr(colour, "color_jitter", lambda x, *settings: calls.append(settings) or x)
    draw = Draw(24_000, torch.device("cpu"), seeded())
    View().jitter(torch.rand(24_000, 3, 1, 1), draw)
    ((amounts, blends, hue_rows),) = calls
    assert amounts.shape == (24_000, 4) and blends.shape == (24_000, 3)
    place = torch.full((24_000,), -1)
    for turn, rows in enumerate(hue_rows):
        assert place[rows].eq(-1).all()
        place[rows] = turn
    assert place.ne(-1).all()
    orders, counts = torch.cat([place.unsqueeze(1), blends], 1).unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 850 and counts.max() < 1150  # five standard deviations around 1000


def test_groups_divide_the_samples_at_random_and_evenly():
    draw = Draw(10, torch.device("cpu"), seeded())
    first, second = draw.groups(4), draw.groups(4)
    assert [len(rows) for rows in first] == [3, 3, 2, 2]
    assert sorted(torch.cat(first).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_samples_have_their_own_parameters():
    x = photos(1).expand(16, -1, -1, -1)
    views = View()(x, seeded()).flatten(1)
    assert torch.pdist(views).min() > 1e-3


def test_a_generator_decides_and_the_global_stream_is_left_alone():
    x, view = photos(), View(**EVERYTHING)
    before = torch.random.get_rng_state()
    first = view(x, seeded(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, view(x, seeded(3)))
    assert not torch.equal(first, view(x, seeded(4)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(view(x), first)


def test_autocast_changes_nothing():
    x, view = photos(), View(**EVERYTHING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = view(x, seeded())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, view(x, seeded()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"flip_prob": 1.5}, "flip_prob"),
        ({"jitter_prob": -0.1}, "jitter_prob"),
        ({"hue": 0.6}, "hue"),
        ({"brightness": 1.2}, "brightness"),
        ({"translate": -0.1}, "translate"),
        ({"rotate_degrees": -5.0}, "rotate_degrees"),
        ({"shear_degrees": 90.0}, "shear_degrees"),
        ({"size": 0}, "size"),
    ],
)
def test_refuses_settings_without_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        View(**settings)


# Two views


def test_two_views_are_one_pass_over_both_halves():
    x = photos()
    views = TwoViews(View())({"image": x, "label": torch.zeros(len(x))}, seeded())
    assert set(views) == {"image"}
    assert torch.equal(views["image"], View()(torch.cat([x, x]), seeded()))
    first, second = halves(views)
    assert first["image"].shape == x.shape and not torch.equal(first["image"], second["image"])


def test_two_views_with_their_own_settings():
    x = photos()
    views = TwoViews(View(**OFF), View(**OFF | {"solarize_prob": 1.0}))({"image": x}, seeded())
    first, second = views["image"].chunk(2)
    torch.testing.assert_close(first, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(second, reference.solarize(x, 0.5), atol=1e-5, rtol=0)


def test_two_views_need_one_size():
    with pytest.raises(ValueError, match="one size"):
        TwoViews(View(size=32), View(size=16))


def test_views_have_no_state():
    views = TwoViews(View(), View())
    assert isinstance(views, nn.Module) and not views.state_dict()


# Pictures


@pytest.mark.parametrize("size", [None, 12])
def test_pictures_show_images_above_their_views(size):
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=seeded())
    grid = TwoViews(View(**OFF, size=size)).show({"image": images})["views"]
    side = size or 16
    assert grid.images.shape == (3, 12, 3, side, side)
    if size is None:
        torch.testing.assert_close(grid.images, (images[:12] / 255).expand(3, -1, -1, -1, -1), atol=1e-5, rtol=0)
