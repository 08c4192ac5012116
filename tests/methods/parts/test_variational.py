"""VAE, BetaVAE, BetaTCVAE and IWAE beside slow references, and what they offer."""

from functools import partial

import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images
from torch.distributions import Bernoulli, Normal, kl_divergence

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.generators.dcgan import DCGANGenerator
from ssl_lab.generators.mlp import MLPGenerator
from ssl_lab.losses.variational import decomposed_kl, importance_bound
from ssl_lab.methods.beta_tcvae import BetaTCVAE
from ssl_lab.methods.beta_vae import BetaVAE
from ssl_lab.methods.iwae import IWAE
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")
METHODS = (VAE, BetaVAE, BetaTCVAE, IWAE)
LATENT_DIM = 3


def make(kind, **settings):
    torch.manual_seed(0)
    decoder = partial(MLPGenerator, hidden_dims=(6,))
    method = kind(MLPEncoder(IMAGES, hidden_dims=(8,)), SGD(), decoder, latent_dim=LATENT_DIM, **settings)
    method.current_beta = lambda: 1.0
    method.progress = lambda: 0.5
    method.num_train_samples = lambda joined: 3 * joined
    return method.double()


def with_noise(method, shape):
    """The noise of the next step, drawn beforehand."""
    torch.manual_seed(5)
    noise = torch.randn(shape, dtype=torch.float64)
    torch.manual_seed(5)
    return noise


def terms(method, batch, noise):
    """log p(x|z), and both densities of z, of each image by torch's distributions."""
    x = (batch["image"].float() / 255).double()
    mean, log_var = method.posterior(x)
    posterior = Normal(mean, (log_var / 2).exp())
    z = posterior.mean + posterior.stddev * noise
    log_likelihood = -torch.nn.functional.binary_cross_entropy_with_logits(
        method.decoder(z.flatten(0, -2)).view(*noise.shape[:-1], -1),
        x.flatten(1).expand(*noise.shape[:-1], -1),
        reduction="none",
    ).sum(-1)
    return log_likelihood, Normal(0.0, 1.0).log_prob(z).sum(-1), posterior.log_prob(z).sum(-1), posterior


def test_vae_step_is_the_negative_bound():
    method, batch = make(VAE), images(0)
    noise = with_noise(method, (NUM_SAMPLES, LATENT_DIM))
    loss = method.training_step(batch, 0)
    log_likelihood, _, _, posterior = terms(method, batch, noise)
    expected = (kl_divergence(posterior, Normal(0.0, 1.0)).sum(1) - log_likelihood).mean()
    torch.testing.assert_close(loss, expected)


def test_beta_vae_pays_for_the_distance_to_its_capacity():
    method, batch = make(BetaVAE, gamma=7.0, max_capacity=30.0, capacity_fraction=0.8), images(0)
    noise = with_noise(method, (NUM_SAMPLES, LATENT_DIM))
    loss = method.training_step(batch, 0)
    log_likelihood, _, _, posterior = terms(method, batch, noise)
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(loss, -log_likelihood.mean() + 7 * (kl - 30 * 0.5 / 0.8).abs())
    method.progress = lambda: 0.9
    assert method.capacity() == 30


def test_beta_tcvae_weighs_the_parts_of_the_kl():
    method, batch = make(BetaTCVAE, alpha=0.5, beta=3.0, gamma=2.0), images(0)
    noise = with_noise(method, (NUM_SAMPLES, LATENT_DIM))
    loss = method.training_step(batch, 0)
    log_likelihood, _, _, posterior = terms(method, batch, noise)
    z = posterior.mean + posterior.stddev * noise
    mutual, total, own = decomposed_kl(z, posterior.mean, 2 * posterior.stddev.log(), num_samples=3 * NUM_SAMPLES)
    torch.testing.assert_close(loss, -log_likelihood.mean() + 0.5 * mutual + 3 * total + 2 * own)


def test_beta_tcvae_with_weights_of_one_is_a_vae_whose_kl_is_sampled():
    method, batch = make(BetaTCVAE, beta=1.0), images(0)
    noise = with_noise(method, (NUM_SAMPLES, LATENT_DIM))
    loss = method.training_step(batch, 0)
    log_likelihood, log_prior, log_posterior, _ = terms(method, batch, noise)
    torch.testing.assert_close(loss, -(log_likelihood + log_prior - log_posterior).mean())


def test_iwae_step_is_the_bound_by_a_loop_over_samples():
    method, batch = make(IWAE, num_samples=4), images(0)
    noise = with_noise(method, (4, NUM_SAMPLES, LATENT_DIM))
    loss = method.training_step(batch, 0)
    weights = torch.zeros(NUM_SAMPLES, dtype=torch.float64)
    for s in range(4):
        log_likelihood, log_prior, log_posterior, _ = terms(method, batch, noise[s])
        weights += torch.exp(log_likelihood + log_prior - log_posterior) / 4
    torch.testing.assert_close(loss, -weights.log().mean(), rtol=1e-9, atol=1e-9)


def test_iwae_gradient_is_that_of_the_weighted_samples():
    """Burda et al., eq. 14: samples weighted by their normalised importance."""
    method, batch = make(IWAE, num_samples=4), images(0)
    noise = with_noise(method, (4, NUM_SAMPLES, LATENT_DIM))
    method.training_step(batch, 0).backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    log_likelihood, log_prior, log_posterior, _ = terms(method, batch, noise)
    log_weights = log_likelihood + log_prior - log_posterior
    (-(log_weights.softmax(0).detach() * log_weights).sum(0).mean()).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(found[name], p.grad, msg=name)


def test_the_bound_rises_with_the_number_of_samples():
    method, batch = make(IWAE), images(0)
    log_weights = method.capabilities()["log_weights"](batch, 1000, torch.Generator().manual_seed(0))
    assert log_weights.shape == (1000, NUM_SAMPLES)
    groups = [log_weights.view(-1, size, NUM_SAMPLES) for size in (1, 10, 1000)]
    bounds = [torch.stack([importance_bound(w) for w in group]).mean() for group in groups]
    assert bounds[0] < bounds[1] - 1e-3 < bounds[2] - 2e-3


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_weights_of_one_sample_have_the_mean_of_the_bound(kind, likelihood):
    method, batch = make(kind, likelihood=likelihood), images(0)
    fns = method.capabilities()
    log_weights = fns["log_weights"](batch, 4000, torch.Generator().manual_seed(0))
    bounds = torch.stack([fns["elbo"](batch, torch.Generator().manual_seed(s))["elbo"] for s in range(200)])
    tolerance = 6 * (log_weights.var(0) / 4000 + bounds.var(0) / 200).sqrt()
    assert ((log_weights.mean(0) - bounds.mean(0)).abs() < tolerance).all()


@pytest.mark.parametrize("kind", METHODS)
def test_what_is_offered_fits_together(kind):
    method, batch = make(kind), images(0)
    fns = method.capabilities()
    z = fns["encode"](batch)
    assert z.shape == (NUM_SAMPLES, LATENT_DIM)
    assert torch.equal(z, fns["features"](batch))
    assert torch.equal(fns["decode"](z), fns["reconstruct"](batch))
    assert fns["reconstruct"](batch).shape == batch["image"].shape
    mean, kl = fns["latents"](batch)
    assert torch.equal(mean, z)
    torch.testing.assert_close(kl.sum(1), fns["elbo"](batch, torch.Generator())["kl"])
    pictures = method.pictures(batch)
    assert pictures["reconstructions"].images.shape == (2, 12, 1, 8, 8)
    assert pictures["samples"].images.shape == (5, 16, 1, 8, 8)


@pytest.mark.parametrize("kind", METHODS)
def test_binarised_pixels_are_encoded_and_predicted(kind):
    method, batch = make(kind, binarize="static"), images(0)
    fns = method.capabilities()
    black_and_white = method.pixels(batch).double()
    assert set(black_and_white.unique().tolist()) == {0.0, 1.0}
    plain = make(kind)
    plain.load_state_dict(method.state_dict())
    expected = plain.capabilities()["elbo"]({**batch, "image": black_and_white}, torch.Generator().manual_seed(0))
    found = fns["elbo"](batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)
    logits = method.decoder(fns["encode"](batch))
    log_prob = Bernoulli(logits=logits).log_prob(black_and_white).flatten(1).sum(1)
    torch.testing.assert_close(method.nll(fns["encode"](batch), black_and_white), -log_prob)


def test_stochastic_pixels_are_new_in_training_and_the_same_in_evaluation():
    method, batch = make(VAE, binarize="stochastic"), images(0)
    assert not torch.equal(method.pixels(batch), method.pixels(batch))
    assert torch.equal(method.features(batch), method.features(batch))
    assert not torch.equal(method.features(batch), method.features({**batch, "index": batch["index"] + 1}))


def test_warmup_counts_optimizer_steps():
    class FakeTrainer:
        estimated_stepping_batches = 100

    method = VAE(ConvNet(IMAGES, widths=(4,)), SGD(), partial(DCGANGenerator, width=4), beta=2.0)
    method._trainer = FakeTrainer()
    VAE.global_step, saved = 4, VAE.global_step
    try:
        assert method.current_beta() == pytest.approx(2.0 * 5 / 10)
        VAE.global_step = 50
        assert method.current_beta() == 2.0
    finally:
        VAE.global_step = saved


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (VAE, {"beta": -1.0}, "VAE needs beta >= 0"),
        (VAE, {"likelihood": "poisson"}, "Choose from bernoulli, gaussian, logistic"),
        (VAE, {"likelihood": "gaussian", "binarize": "threshold"}, "Set method.likelihood=bernoulli"),
        (BetaVAE, {"capacity_fraction": 0.0}, "BetaVAE needs gamma > 0"),
        (BetaTCVAE, {"beta": -0.1}, "weights of at least 0"),
        (IWAE, {"num_samples": 0}, "at least one latent sample"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **settings)
