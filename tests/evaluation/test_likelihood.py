import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from scipy.stats import norm

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.likelihood import LikelihoodBound
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import AdamW

CPU = torch.device("cpu")
DIM = 64


def pixels(datamodule, split):
    return datamodule.columns(split)["image"].flatten(1).double() / 255


def bound_by_brightness(batch, generator):
    """A made-up bound that is a function of the image alone."""
    x = batch["image"].flatten(1).float() / 255
    reconstruction, kl = x.sum(1), x.square().sum(1)
    return {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}


def constant(nats):
    def fn(batch, generator):
        value = torch.full((len(batch["image"]),), float(nats))
        return {"elbo": -value, "reconstruction": value, "kl": torch.zeros_like(value)}

    return fn


@pytest.mark.parametrize("eval_batch_size", [1, 30, 64])
def test_terms_are_means_over_the_split_whatever_the_batches(eval_batch_size):
    datamodule = ArrayImages(eval_batch_size=eval_batch_size)
    x = pixels(datamodule, "val")
    found = LikelihoodBound().run(bound_by_brightness, datamodule, device=CPU, split="val")
    assert found["elbo/reconstruction"] == pytest.approx(float(x.sum(1).mean()))
    assert found["elbo/kl"] == pytest.approx(float(x.square().sum(1).mean()))
    assert found["elbo/elbo"] == pytest.approx(-found["elbo/reconstruction"] - found["elbo/kl"])
    assert found["elbo/bits_per_dim"] == pytest.approx(-found["elbo/elbo"] / DIM / math.log(2))


def test_a_fair_coin_per_pixel_costs_one_bit():
    found = LikelihoodBound().run(constant(DIM * math.log(2)), ArrayImages(), device=CPU)
    assert found["elbo/bits_per_dim"] == pytest.approx(1)


def test_the_uniform_density_costs_eight_bits_per_pixel():
    found = LikelihoodBound(likelihood="gaussian").run(constant(0), ArrayImages(), device=CPU)
    assert found["elbo/bits_per_dim"] == pytest.approx(8)


def test_the_bernoulli_baseline_is_the_cross_entropy_of_pixel_means():
    datamodule = ArrayImages(eval_batch_size=30)
    train, x = pixels(datamodule, "train"), pixels(datamodule, "test")
    nats = F.binary_cross_entropy(train.mean(0).expand_as(x), x, reduction="none").sum(1).mean()
    found = LikelihoodBound().run(constant(0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(float(nats) / DIM / math.log(2))


def test_the_gaussian_baseline_is_the_density_with_one_shared_variance():
    datamodule = ArrayImages(eval_batch_size=30)
    train, x = pixels(datamodule, "train"), pixels(datamodule, "test")
    sigma = float((train - train.mean(0)).square().mean().sqrt())
    nats = -norm.logpdf(x, loc=train.mean(0), scale=sigma).sum(1).mean()
    found = LikelihoodBound(likelihood="gaussian").run(constant(0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(nats / DIM / math.log(2) + 8)


def test_a_pixel_never_seen_lit_costs_no_infinite_amount():
    class Dark(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            columns["image"][:, :, 0, 0] = 0 if split == "train" else 255
            return columns

    found = LikelihoodBound().run(constant(0), Dark(), device=CPU)
    lit = float(F.binary_cross_entropy(pixels(Dark(), "train")[:, 1:].mean(0), pixels(Dark(), "test")[:, 1:].mean(0)))
    expected = (lit * (DIM - 1) - math.log(0.5 / 64)) / DIM / math.log(2)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(expected)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_runs_on_the_bound_of_a_vae_and_repeats_itself(likelihood):
    datamodule = ArrayImages()
    decoder = partial(DCGANGenerator, width=8)
    vae = VAE(ConvNet(datamodule.spec, widths=(8,)), AdamW(), decoder, latent_dim=4, likelihood=likelihood)
    elbo = vae.capabilities()["elbo"]
    protocol = LikelihoodBound(likelihood=likelihood)
    torch.manual_seed(0)
    first = protocol.run(elbo, datamodule, device=CPU)
    torch.manual_seed(1)
    assert protocol.run(elbo, datamodule, device=CPU) == first
    assert LikelihoodBound(likelihood=likelihood, seed=1).run(elbo, datamodule, device=CPU) != first
    assert first["elbo/elbo"] == pytest.approx(-first["elbo/reconstruction"] - first["elbo/kl"], rel=1e-5)


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match="Choose bernoulli or gaussian"):
        LikelihoodBound(likelihood="poisson")
