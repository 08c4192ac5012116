import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from scipy.stats import norm
from torch.distributions import Bernoulli, MultivariateNormal, Normal

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.evaluation.likelihood.images import ImportanceNLL, LatentUse, LikelihoodBound
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.generators.mlp import MLPGenerator
from ssl_lab.losses.variational import gaussian_level_nll
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import AdamW
from ssl_lab.pretext.binarize import Binarize

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


def with_level_nll(nats):
    def fn(batch, generator):
        return {**constant(-1e6)(batch, generator), "level_nll": torch.full((len(batch["index"]),), nats)}

    return fn


def test_bits_of_a_gaussian_are_those_of_levels_and_not_of_its_density():
    """A density may be as high as it likes: here exp(10^6), which would be far below 0 bits."""
    found = LikelihoodBound(likelihood="gaussian").run(with_level_nll(DIM * math.log(256)), ArrayImages(), device=CPU)
    assert found["elbo/bits_per_dim"] == pytest.approx(8)
    with pytest.raises(
        ValueError, match="need the probability of each pixel's level, but the method's elbo gives elbo"
    ):
        LikelihoodBound(likelihood="gaussian").run(constant(0), ArrayImages(), device=CPU)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bound_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="which is not finite. Lower optim.lr"):
        LikelihoodBound().run(constant(bad), ArrayImages(), device=CPU)


def test_a_sharp_gaussian_on_pixels_of_few_levels_costs_no_less_than_nothing():
    """All pixels are black or white, and the model knows them: its density grows without bound as sigma shrinks."""
    x = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 4)
    bits = [float(gaussian_level_nll(x, torch.tensor(log_sigma), x)) / 4 / math.log(2) for log_sigma in (-2, -6, -20)]
    assert bits[0] > bits[1] > bits[2] >= 0 and bits[2] < 1e-6


def test_the_bernoulli_baseline_is_the_cross_entropy_of_pixel_means():
    datamodule = ArrayImages(eval_batch_size=30)
    train, x = pixels(datamodule, "train"), pixels(datamodule, "test")
    nats = F.binary_cross_entropy(train.mean(0).expand_as(x), x, reduction="none").sum(1).mean()
    found = LikelihoodBound().run(constant(0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(float(nats) / DIM / math.log(2))


def test_the_gaussian_baseline_is_the_probability_of_levels_with_one_shared_variance():
    datamodule = ArrayImages(eval_batch_size=30)
    train, x = pixels(datamodule, "train"), pixels(datamodule, "test")
    sigma = float((train - train.mean(0)).square().mean().sqrt())
    above, below = (norm.cdf(x + side, loc=train.mean(0), scale=sigma) for side in (0.5 / 255, -0.5 / 255))
    above[x == 1], below[x == 0] = 1, 0
    nats = -np.log(above - below).sum(1).mean()
    found = LikelihoodBound(likelihood="gaussian").run(with_level_nll(0.0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(nats / DIM / math.log(2))


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


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
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
    with pytest.raises(ValueError, match="Choose bernoulli, gaussian or logistic"):
        LikelihoodBound(likelihood="poisson")


def test_logistic_bits_are_those_of_a_probability():
    found = LikelihoodBound(likelihood="logistic").run(constant(DIM * math.log(256)), ArrayImages(), device=CPU)
    assert found["elbo/bits_per_dim"] == pytest.approx(8)  # no level is more likely than another


def test_the_logistic_baseline_counts_the_levels_of_each_pixel():
    datamodule = ArrayImages(eval_batch_size=30)
    train, test = (datamodule.columns(split)["image"].flatten(1).tolist() for split in ("train", "test"))
    nats = 0.0
    for row in test:
        for place, level in enumerate(row):
            count = sum(other[place] == level for other in train)
            nats -= math.log((count + 0.5) / (len(train) + 128)) / len(test)
    found = LikelihoodBound(likelihood="logistic").run(constant(0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(nats / DIM / math.log(2))


@pytest.mark.parametrize("binarize", ["threshold", "stochastic"])
def test_the_baseline_is_fitted_to_the_pixels_of_the_model(binarize):
    datamodule = ArrayImages(eval_batch_size=30)
    index = torch.arange(64)
    train, x = (
        Binarize(binarize).eval()(pixels(datamodule, split).view(64, 1, 8, 8), index).flatten(1)
        for split in ("train", "test")
    )
    p = train.mean(0).clamp(0.5 / 64, 1 - 0.5 / 64)
    nats = F.binary_cross_entropy(p.expand_as(x), x, reduction="none").sum(1).mean()
    found = LikelihoodBound(binarize=binarize).run(constant(0), datamodule, device=CPU)
    assert found["elbo/baseline_bits_per_dim"] == pytest.approx(float(nats) / DIM / math.log(2))


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + b, s^2 I), whose p(x) = N(b, WW' + s^2 I) and p(z|x) are known."""

    def __init__(self, *, stretch):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(DIM, 3, dtype=torch.float64, generator=generator)
        self.bias = torch.rand(DIM, dtype=torch.float64, generator=generator)
        self.sigma, self.stretch = 0.5, stretch
        precision = torch.eye(3) + self.weight.T @ self.weight / self.sigma**2
        self.covariance = torch.linalg.inv(precision)

    def log_weights(self, batch, num_samples, generator):
        x = batch["image"].flatten(1).double() / 255
        mean = (x - self.bias) @ self.weight @ self.covariance / self.sigma**2
        covariance = self.stretch * self.covariance
        q = MultivariateNormal(mean, covariance)
        noise = torch.randn(num_samples, len(x), 3, dtype=torch.float64, generator=generator)
        z = mean + noise @ torch.linalg.cholesky(covariance).T
        likelihood = Normal(z @ self.weight.T + self.bias, self.sigma).log_prob(x).sum(2)
        return likelihood + Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z)

    def nll(self, x):
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(DIM)
        return -MultivariateNormal(self.bias, covariance).log_prob(x).mean().item()


def test_importance_sampling_from_the_true_posterior_is_exact():
    model, datamodule = LinearGaussian(stretch=1.0), ArrayImages()
    found = ImportanceNLL(num_samples=3).run(model.log_weights, datamodule, device=CPU)
    assert found["nll/nats_k3"] == pytest.approx(model.nll(pixels(datamodule, "test")), abs=1e-6)
    assert found["nll/effective_samples_k3"] == pytest.approx(3)


def test_importance_sampling_finds_the_likelihood_of_a_linear_gaussian_model():
    model, datamodule = LinearGaussian(stretch=2.0), ArrayImages()
    exact = model.nll(pixels(datamodule, "test"))
    found = ImportanceNLL(num_samples=5000).run(model.log_weights, datamodule, device=CPU)
    assert found["nll/nats_k5000"] == pytest.approx(exact, abs=0.01)
    assert 1000 < found["nll/effective_samples_k5000"] < 4000
    few = ImportanceNLL(num_samples=2).run(model.log_weights, datamodule, device=CPU)
    assert few["nll/nats_k2"] > exact + 0.05  # an upper bound on average


def small_vae(datamodule):
    torch.manual_seed(0)
    decoder = partial(MLPGenerator, hidden_dims=(8,))
    encoder = MLPEncoder(datamodule.spec, hidden_dims=(8,))
    return VAE(encoder, AdamW(), decoder, latent_dim=3, binarize="stochastic")


def test_importance_sampling_equals_a_loop_over_images_and_samples():
    datamodule = ArrayImages(num_samples=5)
    vae = small_vae(datamodule).eval()
    nats, effective = [], []
    for batch in ArrayImages(num_samples=5, eval_batch_size=1).eval_dataloader("test"):
        generator = torch.Generator().manual_seed(hash((4, int(batch["index"]))) % 2**63)
        mean, log_var = vae.posterior(vae.pixels(batch))
        q, noise = Normal(mean, (log_var / 2).exp()), []
        for chunk in (8, 8, 4):
            noise.append(torch.randn(chunk, 1, 3, generator=generator))
        weights = []
        for eps in torch.cat(noise):
            z = q.mean + q.stddev * eps
            likelihood = Bernoulli(logits=vae.decoder(z)).log_prob(vae.pixels(batch)).sum()
            log_w = likelihood + Normal(0.0, 1.0).log_prob(z).sum() - q.log_prob(z).sum()
            weights.append(math.exp(log_w.item()))
        nats.append(-math.log(sum(weights) / 20))
        effective.append(sum(weights) ** 2 / sum(w * w for w in weights))
    found = ImportanceNLL(num_samples=20, chunk_size=8, seed=4).run(
        vae.capabilities()["log_weights"], datamodule, device=CPU
    )
    assert found["nll/nats_k20"] == pytest.approx(sum(nats) / 5, rel=1e-6)
    assert found["nll/effective_samples_k20"] == pytest.approx(sum(effective) / 5, rel=1e-4)


def test_batches_do_not_matter_and_seeds_do():
    fn = small_vae(ArrayImages()).capabilities()["log_weights"]

    def run(eval_batch_size, **settings):
        datamodule = ArrayImages(num_samples=20, eval_batch_size=eval_batch_size)
        return ImportanceNLL(num_samples=30, **settings).run(fn, datamodule, device=CPU)

    assert run(20) == run(3)
    assert run(20, seed=1) != run(20)
    assert run(20, num_images=7) == run(3, num_images=7) != run(20)
    assert run(20, num_images=500) == run(20)


def test_no_more_latents_are_decoded_at_once_than_asked():
    asked = []

    def fn(batch, num_samples, generator):
        asked.append(num_samples)
        return torch.zeros(num_samples, 1)

    found = ImportanceNLL(num_samples=25, num_images=2, chunk_size=10).run(fn, ArrayImages(), device=CPU)
    assert asked == [10, 10, 5] * 2
    assert found == {"nll/nats_k25": pytest.approx(0), "nll/effective_samples_k25": pytest.approx(25)}


def test_active_units_are_those_whose_mean_varies():
    def fn(batch):
        x = batch["image"].flatten(1).float() / 255
        mean = torch.stack([x.mean(1), 5 + 0 * x[:, 0], 1e-3 * x[:, 0]], dim=1)
        return mean, torch.stack([x[:, 0], x[:, 1], 0 * x[:, 2]], dim=1)

    datamodule = ArrayImages(eval_batch_size=30)
    x = pixels(datamodule, "test")
    found = LatentUse(threshold=float(x.mean(1).var()) * 0.99).run(fn, datamodule, device=CPU)
    assert found["elbo/active_units"] == 1
    assert found["elbo/kl_dim_1"] == pytest.approx(float(x[:, 1].mean()))
    assert found["elbo/kl_dim_2"] == 0
    assert LatentUse(threshold=float(x.mean(1).var()) * 1.01).run(fn, datamodule, device=CPU)["elbo/active_units"] == 0


@pytest.mark.parametrize("threshold", [-1.0, math.nan, math.inf])
def test_a_threshold_that_all_or_none_pass_is_refused(threshold):
    with pytest.raises(ValueError, match="must be at least 0"):
        LatentUse(threshold=threshold)


def test_dimensions_are_listed_only_if_they_are_few():
    found = LatentUse().run(lambda batch: (torch.zeros(len(batch["image"]), 65),) * 2, ArrayImages(), device=CPU)
    assert found == {"elbo/active_units": 0}


def test_importance_sampling_without_samples_is_refused():
    with pytest.raises(ValueError, match="of at least 1, found 0"):
        ImportanceNLL(num_samples=0)
