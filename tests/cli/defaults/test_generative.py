"""Settings that generative methods get from the data."""

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.defaults import generative
from ssl_lab.cli.defaults.facts import Facts
from ssl_lab.cli.paths import config_dir
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec


def facts(*, shape=(1, 28, 28), num_samples=8000, device="cpu", mirrored=False):
    spec = ImageSpec(shape=shape, mean=(0.5,) * shape[0], std=(0.2,) * shape[0])
    return Facts(spec=spec, num_samples=num_samples, labelled=False, device=device, mirrored=mirrored)


def composed(*overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("pretrain", list(overrides), return_hydra_config=True)


def chosen(given, *overrides, num_steps=None):
    """The settings after the choices, which the command composes again with them."""
    cfg = composed(*overrides)
    found = [choice.override for choice in generative.of_data(given, cfg)]
    cfg = composed(*found, *overrides)
    if num_steps is not None:
        found += [choice.override for choice in generative.of_length(given, cfg, num_steps)]
        cfg = composed(*found, *overrides)
    return cfg


@pytest.mark.parametrize("method", ["vae", "beta_vae", "beta_tcvae", "iwae"])
def test_small_images_are_coded_by_fully_connected_layers_on_a_cpu(method):
    cfg = chosen(facts(), f"method={method}", num_steps=4000)
    assert cfg.encoder.hidden_dims == list(reversed(cfg.method.decoder.hidden_dims)) == [512, 256]
    assert (cfg.data.batch_size, cfg.optim.lr) == (64 if method == "iwae" else 128, 2e-3)
    num_samples = cfg.method.get("num_samples", 1)
    assert cfg.method.latent_dim <= 16 and num_samples <= 5
    assert 59 <= cfg.trainer.max_epochs * (1 if num_samples == 1 else 4) <= 60


def test_codes_are_judged_by_a_narrow_discriminator_at_the_usual_rate():
    cfg = chosen(facts(), "method=aae", num_steps=4000)
    assert (cfg.method.hidden_dim, cfg.optim.lr, cfg.data.batch_size) == (256, 1e-3, 64)
    assert cfg.encoder.hidden_dims == [512, 256]


def test_large_images_keep_convolutions():
    cfg = chosen(facts(shape=(3, 128, 128)), "method=vae")
    assert cfg.encoder._target_.endswith("ConvNet") and cfg.method.decoder._target_.endswith("DCGANGenerator")
    assert cfg.trainer.max_epochs == 2


def test_networks_that_are_given_stay():
    cfg = chosen(facts(), "method=vae", "encoder=resnet18")
    assert cfg.encoder.depth == 18 and cfg.method.decoder._target_.endswith("DCGANGenerator")


@pytest.mark.parametrize(
    ("method", "expected"),
    [("vae", "vae"), ("beta_tcvae", "vae"), ("iwae", "vae"), ("aae", "gan"), ("gan", "gan"), ("vq_vae", "features")],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_method_that_generates_is_judged_by_what_it_generates(method, expected, device):
    cfg = chosen(facts(device=device), f"method={method}")
    assert cfg.hydra.runtime.choices["evaluation"] == expected


def test_an_evaluation_that_is_given_stays():
    cfg = chosen(facts(), "method=vae", "evaluation=samples")
    assert cfg.hydra.runtime.choices["evaluation"] == "samples"


def test_a_gan_of_a_short_run_has_equal_networks_and_a_young_average():
    cfg = chosen(facts(), "method=gan", num_steps=2000)
    assert (cfg.encoder.width, cfg.method.generator.width, cfg.method.generator_optim) == (16, 16, None)
    assert (cfg.optim.lr, cfg.optim.betas[0]) == (4e-4, 0.5)
    assert (cfg.method.ema_decay, cfg.data.batch_size) == (0.99, 64)
    assert chosen(facts(), "method=gan", num_steps=10**6).method.ema_decay == 0.999


def test_sides_that_no_convolution_halves_keep_the_networks_that_say_so():
    cfg = chosen(facts(shape=(1, 27, 27)), "method=gan")
    assert cfg.encoder._target_.endswith("ConvNet")


def test_a_gpu_keeps_the_networks_of_the_configuration():
    for method in ("vae", "gan", "vq_vae"):
        given, plain = chosen(facts(device="cuda"), f"method={method}", num_steps=1000), composed(f"method={method}")
        assert (given.encoder, given.method, given.data, given.optim) == (
            plain.encoder,
            plain.method,
            plain.data,
            plain.optim,
        )


def test_other_methods_and_other_data_get_nothing():
    assert not list(generative.of_data(facts(), composed("method=simclr")))
    text = Facts(
        spec=TextSpec(length=4, vocab_size=20, pad_id=0, mask_id=1, special_ids=(0, 1)),
        num_samples=10,
        labelled=False,
        device="cpu",
    )
    assert not list(generative.of_data(text, composed("method=vae")))
