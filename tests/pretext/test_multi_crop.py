import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssl_lab.cli.paths import config_dir
from ssl_lab.pretext.multi_crop import MultiCrop
from ssl_lab.pretext.views import TwoViews, View


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(batch=4, channels=3, height=32, width=32):
    return torch.rand(batch, channels, height, width, generator=seeded(7))


def multi_crop(**settings):
    return MultiCrop(TwoViews(View()), View(size=16, crop_scale=(0.08, 0.25)), **settings)


def pixels(views, x, seed=0):
    """The images of each size, shape (V, B, C, h, w)."""
    return [crops["image"].unflatten(0, (-1, len(x))) for crops in views({"image": x}, seeded(seed))]


@pytest.mark.parametrize("name", ["multi_crop", "multi_crop_byol"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_range_of_the_configured_views(name, channels):
    views = instantiate(OmegaConf.load(config_dir() / "views" / f"{name}.yaml"), _convert_="all")
    x = (photos(channels=channels) * 255).to(torch.uint8)
    large, small = pixels(views, x)
    assert large.shape == (2, 4, channels, 32, 32)
    assert small.shape == (6, 4, channels, 16, 16)
    for crops in (large, small):
        assert crops.dtype == torch.float32
        assert 0 <= crops.min() and crops.max() <= 1


@pytest.mark.parametrize(("size", "local_size"), [(None, 8), (28, 20), (48, 16)])
def test_sizes_are_those_of_the_views(size, local_size):
    views = MultiCrop(TwoViews(View(size=size)), View(size=local_size), num_local=3)
    large, small = pixels(views, photos(height=24, width=40))
    assert large.shape[3:] == ((24, 40) if size is None else (size, size))
    assert small.shape == (3, 4, 3, local_size, local_size)


def test_without_local_views_there_are_two_views():
    batch = {"image": photos()}
    (large,) = multi_crop(num_local=0)(batch, seeded())
    assert torch.equal(large["image"], TwoViews(View())(batch, seeded())["image"])


def test_rows_of_all_views_show_the_same_image():
    """On plain images without colour changes every crop has its image's colour."""
    x = torch.linspace(0.1, 0.9, 5).view(5, 1, 1, 1).expand(5, 3, 32, 32)
    plain = {"jitter_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": 0.0}
    for crops in pixels(MultiCrop(TwoViews(View(**plain)), View(size=16, **plain), num_local=3), x):
        torch.testing.assert_close(crops, x[:, :, :1, :1].expand_as(crops))


def test_local_views_show_small_parts_and_differ():
    """On an image that is its own coordinate, the span of a crop is its side."""
    x = torch.linspace(0, 1, 64).expand(200, 1, 64, 64)
    plain = {"jitter_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": 0.0, "crop_ratio": (1.0, 1.0)}
    local = View(size=16, crop_scale=(0.08, 0.25), **plain)
    large, small = pixels(MultiCrop(TwoViews(View(crop_scale=(0.25, 1.0), **plain)), local, num_local=4), x)
    span = {
        name: crops.amax((2, 3, 4)) - crops.amin((2, 3, 4)) for name, crops in {"large": large, "small": small}.items()
    }
    assert span["large"].min() > 0.45 and span["large"].max() > 0.9
    assert span["small"].max() < 0.52
    assert torch.pdist(small[:, :10].flatten(0, 1).flatten(1)).min() > 1e-3


def test_a_generator_decides_and_the_global_stream_is_left_alone():
    x, views = photos(), multi_crop()
    before = torch.random.get_rng_state()
    first, again, other = (pixels(views, x, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    for i in range(2):
        assert torch.equal(first[i], again[i])
        assert not torch.equal(first[i], other[i])


def test_refuses_a_negative_number_of_local_views():
    with pytest.raises(ValueError, match="at least 0, found -1"):
        multi_crop(num_local=-1)


def test_pictures_show_images_above_their_views_and_local_views_apart():
    images = (photos(14, height=24, width=24) * 255).to(torch.uint8)
    batch = {"image": images}
    pictures = MultiCrop(TwoViews(View(size=20)), View(size=8), num_local=3).show(batch)
    assert pictures["views"].images.shape == (3, 12, 3, 20, 20)
    assert pictures["local_views"].images.shape == (3, 12, 3, 8, 8)
    assert set(multi_crop(num_local=0).show(batch)) == {"views"}
