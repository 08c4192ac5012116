import pytest
import timm
import torch
from omegaconf import OmegaConf
from timm.models import save_for_hf

from ssl_lab.cli.build import build_encoder
from ssl_lab.cli.paths import config_dir
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec


def images(channels=3, height=32, width=32):
    return ImageSpec(shape=(channels, height, width), mean=(0.5,) * channels, std=(0.3,) * channels)


def pixels(spec, height, width, batch=2):
    shape = (batch, spec.shape[0], height, width)
    return {"image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 24, 40)])
def test_vit_tiny_takes_its_image_size_from_the_data(channels, height, width):
    spec = images(channels, height, width)
    encoder = build_encoder(OmegaConf.load(config_dir() / "encoder" / "vit_tiny.yaml"), spec)
    assert encoder.embed(pixels(spec, height, width)).shape == (2, 192) == (2, encoder.embed_dim)
    assert encoder.network.pos_embed.shape == (1, 1 + (height // 4) * (width // 4), 192)


@pytest.mark.parametrize("size", [16, 20, 32])
def test_vit_tiny_embeds_smaller_views_and_learns_positions_from_them(size):
    spec = images()
    encoder = build_encoder(OmegaConf.load(config_dir() / "encoder" / "vit_tiny.yaml"), spec)
    h = encoder.embed(pixels(spec, size, size))
    assert h.shape == (2, 192)
    h.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert encoder.network.pos_embed.grad.norm() > 0


def test_options_go_to_timm_and_win_over_the_data():
    encoder = TimmModel(images(), name="test_vit", options={"img_size": 48, "patch_size": 8, "dynamic_img_size": True})
    assert encoder.network.patch_embed.img_size == (48, 48)
    assert encoder.embed(pixels(images(), 32, 32)).shape == (2, encoder.embed_dim)


def test_convolutional_models_take_any_size():
    encoder = TimmModel(images(1), name="test_resnet")
    for size in (32, 20):
        assert encoder.embed(pixels(images(1), size, size)).shape == (2, encoder.embed_dim)


def test_unknown_names_are_answered_with_close_ones():
    with pytest.raises(ValueError, match=r"timm has no model 'vit_tiniest'; names like it: \['.*vit"):
        TimmModel(images(), name="vit_tiniest")


def test_text_is_refused_in_words():
    text = TextSpec(length=12, vocab_size=64)
    with pytest.raises(ValueError, match="takes images, but the data is texts"):
        TimmModel(text, name="test_vit")


def test_images_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ValueError, match=r"does not take images of \(3, 30, 30\): .*img_size=\[30, 30\]"):
        TimmModel(images(3, 30, 30), name="test_vit")


def test_a_local_model_is_loaded_with_its_weights(tmp_path):
    torch.manual_seed(0)
    saved = timm.create_model("test_vit", num_classes=0).eval()
    save_for_hf(saved, str(tmp_path), safe_serialization=False)
    size = saved.pretrained_cfg["input_size"][1]
    encoder = TimmModel(images(3, size, size), name=f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.rand(2, 3, size, size)
    assert torch.equal(encoder.encode(x), saved(x))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "has more than 64 levels"),
        ('{"architecture": "test_vit", "model_args": [1]}', "model_args of its config.json should be a mapping"),
        ('{"architecture": "test_vit", "model_args": {"checkpoint_path": "/x"}}', "names no files"),
    ],
)
def test_the_config_of_a_stranger_is_read_within_limits(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        TimmModel(images(3, 160, 160), name=f"local-dir:{tmp_path}")
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="there is no config.json in"):
        TimmModel(images(3, 160, 160), name=f"local-dir:{tmp_path}")
