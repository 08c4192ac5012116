"""Settings that two-view methods and masked autoencoders get from the data."""

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.defaults import views
from ssl_lab.cli.defaults.facts import Facts
from ssl_lab.cli.paths import config_dir
from ssl_lab.modalities.image import ImageSpec

METHODS = [
    "simclr",
    "moco_v2",
    "moco_v3",
    "nnclr",
    "byol",
    "simsiam",
    "barlow_twins",
    "vicreg",
    "swav",
    "dino",
    "supcon",
]


def facts(*, channels=3, side=32, num_samples=6000, device="cpu", mirrored=True):
    spec = ImageSpec(shape=(channels, side, side), mean=(0.5,) * channels, std=(0.2,) * channels)
    return Facts(spec=spec, num_samples=num_samples, labelled=False, device=device, mirrored=mirrored)


def composed(*overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("pretrain", list(overrides))


def chosen(given, *overrides, num_steps=None):
    """The settings after the choices, which the command composes again with them."""
    cfg = composed(*overrides)
    found = [choice.override for choice in views.of_data(given, cfg)]
    cfg = composed(*overrides, *found)
    if num_steps is not None:
        found += [choice.override for choice in views.of_length(given, cfg, num_steps)]
        cfg = composed(*overrides, *found)
    return cfg


@pytest.mark.parametrize("method", METHODS)
def test_a_short_run_on_grey_scans_composes_and_has_narrow_heads(method):
    cfg = chosen(facts(channels=1, side=28, mirrored=False), f"method={method}", num_steps=400)
    first = (cfg.method.views.global_views if "num_local" in cfg.method.views else cfg.method.views).first
    assert (first.flip_prob, first.hue, first.rotate_degrees) == (0, 0, 15)
    assert cfg.method.hidden_dim <= 512 and cfg.method.projection_dim <= 256
    assert cfg.encoder.widths == [16, 32, 64, 128]


def test_grey_photographs_keep_their_flips_and_lose_changes_of_colour():
    grey = chosen(facts(channels=1, mirrored=True), "method=simclr")
    assert (grey.method.views.first.flip_prob, grey.method.views.first.hue) == (0.5, 0)


@pytest.mark.parametrize("method", ["byol", "swav"])
def test_colour_photographs_get_mild_views_on_a_cpu_and_the_methods_own_elsewhere(method):
    def views_of(device):
        views = chosen(facts(device=device), f"method={method}").method.views
        return views.get("global_views", views)

    assert (views_of("cpu").first.brightness, views_of("cpu").first.hue, views_of("cpu").second) == (0.4, 0.1, None)
    own = composed(f"method={method}").method.views
    assert views_of("cuda") == own.get("global_views", own)


@pytest.mark.parametrize("method", ["simclr", "byol", "swav", "mae"])
def test_no_view_is_mirrored_if_the_images_have_a_direction(method):
    for device in ("cpu", "cuda"):
        cfg = chosen(facts(mirrored=False, device=device), f"method={method}").method
        found = [value for path, value in leaves(cfg) if path.endswith("flip_prob")]
        assert found and not any(found)


def leaves(settings, path=""):
    for name, value in settings.items():
        yield from leaves(value, f"{path}.{name}") if hasattr(value, "items") else [(f"{path}.{name}", value)]


def test_a_gpu_keeps_networks_and_length():
    cfg = composed("method=byol")
    found = [choice.override for choice in views.of_data(facts(channels=1, device="cuda"), cfg)]
    assert found == ["views@method.views=fashion"]
    assert not list(views.of_length(facts(device="cuda"), cfg, 400))


def test_other_data_and_methods_get_nothing():
    assert not list(views.of_data(facts(), composed("method=vae")))
    assert not list(views.of_length(facts(), composed("method=vae"), 400))


@pytest.mark.parametrize(("side", "stride"), [(16, 1), (28, 1), (32, 1), (48, 1), (64, 2), (96, 2), (128, 4), (224, 8)])
def test_the_first_stage_of_a_large_image_is_small(side, stride):
    assert chosen(facts(side=side), "method=simclr").encoder.stride == stride


def test_other_encoders_keep_their_settings():
    cfg = composed("method=simclr", "encoder=resnet18")
    assert not [choice for choice in views.of_data(facts(), cfg) if choice.override.startswith("encoder")]


@pytest.mark.parametrize(
    ("side", "num_samples", "batch_size", "epochs"),
    [(32, 6000, 128, 6), (32, 50_000, 128, 2), (32, 200, 16, 180), (32, 9, 9, 200)],
)
def test_epochs_follow_from_the_number_of_images(side, num_samples, batch_size, epochs):
    cfg = chosen(facts(side=side, num_samples=num_samples), "method=simclr")
    assert (cfg.data.batch_size, cfg.trainer.max_epochs) == (batch_size, epochs)


def test_a_teacher_averages_over_a_part_of_the_run():
    momentum = [chosen(facts(), "method=byol", num_steps=n).method.momentum for n in (100, 400, 2000, 9_000, 20_000)]
    assert momentum == sorted(momentum) and momentum[0] == 0.9 and momentum[-1] == 0.996
    constant = chosen(facts(), "method=moco_v2", num_steps=400).method
    assert constant.momentum == constant.final_momentum == 0.99
    assert chosen(facts(), "method=byol", num_steps=400).method.last_norm is True


def test_a_predictor_stays_wider_than_the_narrow_projection():
    simsiam = chosen(facts(), "method=simsiam", num_steps=400).method
    assert (simsiam.projection_dim, simsiam.predictor_hidden_dim) == (256, 512)


@pytest.mark.parametrize(("side", "patch_size"), [(8, 2), (28, 4), (32, 4), (64, 8), (96, 12), (224, 28), (30, 3)])
def test_mae_gets_a_transformer_whose_patches_divide_the_image(side, patch_size):
    cfg = chosen(facts(side=side), "method=mae", num_steps=400)
    assert cfg.encoder._target_.endswith("ViT")
    assert cfg.encoder.patch_size == patch_size and side % patch_size == 0


def test_mae_keeps_the_transformer_that_was_chosen():
    cfg = chosen(facts(), "method=mae", "encoder=vit_mae_base")
    assert cfg.encoder.embed_dim == 768


def test_a_queue_is_renewed_many_times_and_smaller_than_the_data():
    assert chosen(facts(), "method=moco_v2", num_steps=400).method.queue_size == 2048
    assert chosen(facts(num_samples=50_000), "method=nnclr", num_steps=780).method.queue_size == 8192
    assert chosen(facts(), "method=swav", num_steps=400).method.queue_size == 0


def test_clustering_methods_get_few_prototypes():
    assert chosen(facts(), "method=swav", num_steps=400).method.num_prototypes == 256
    dino = chosen(facts(), "method=dino", num_steps=400).method
    assert (dino.num_prototypes, dino.teacher_temperature, dino.hidden_norm) == (256, 0.04, True)


@pytest.mark.parametrize(
    ("method", "batch_size"), [("simclr", 128), ("vicreg", 128), ("dino", 128), ("byol", 64), ("simsiam", 64)]
)
def test_methods_without_negatives_take_more_and_smaller_steps(method, batch_size):
    assert chosen(facts(), f"method={method}").data.batch_size == batch_size


@pytest.mark.parametrize("side", [31, 6])
def test_mae_leaves_images_that_no_patch_divides_to_the_encoders_message(side):
    found = [choice.override for choice in views.of_data(facts(side=side), composed("method=mae"))]
    assert "encoder=vit_mae_mini" in found and not [each for each in found if "patch_size" in each]
