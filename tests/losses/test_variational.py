import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch.distributions import Bernoulli, Normal, kl_divergence

from ssl_lab.losses.variational import (
    bernoulli_nll,
    decomposed_kl,
    free_bits,
    gaussian_kl,
    gaussian_level_nll,
    gaussian_log_density,
    gaussian_nll,
    importance_bound,
    logistic_nll,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_bernoulli_equals_torch_distributions(generator):
    logits = torch.randn(3, 1, 4, 4, generator=generator)
    x = (torch.rand(3, 1, 4, 4, generator=generator) > 0.5).float()
    expected = -Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


def test_bernoulli_and_its_gradients_equal_torchs_cross_entropy(generator):
    logits = (20 * torch.randn(4, 9, generator=generator, dtype=torch.float64)).requires_grad_()
    x = torch.rand(4, 9, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.rand(4, generator=generator, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    value = bernoulli_nll(logits, x)
    torch.testing.assert_close(value, expected)
    wanted = torch.autograd.grad((weights * expected).sum(), (logits, x))
    torch.testing.assert_close(torch.autograd.grad((weights * value).sum(), (logits, x)), wanted)
    assert torch.autograd.gradgradcheck(bernoulli_nll, (logits, x))
    extreme = torch.tensor([[-1e4, 0.0, 1e4]])
    torch.testing.assert_close(bernoulli_nll(extreme, torch.tensor([[0.0, 0.5, 1.0]])), torch.tensor([math.log(2)]))


def test_bernoulli_does_not_stretch_pixels_to_their_logits():
    with pytest.raises(ValueError, match="shape"):
        bernoulli_nll(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 1))


def test_bernoulli_of_a_grey_value_is_its_expectation(generator):
    logits = torch.randn(1, 5, generator=generator)
    grey = torch.full((1, 5), 0.3)
    expected = 0.3 * bernoulli_nll(logits, torch.ones(1, 5)) + 0.7 * bernoulli_nll(logits, torch.zeros(1, 5))
    torch.testing.assert_close(bernoulli_nll(logits, grey), expected)


def test_gaussian_equals_torch_distributions(generator):
    mean, x = torch.rand(2, 3, 2, 2, 2, generator=generator)
    log_sigma = torch.tensor(-1.3)
    expected = -Normal(mean, log_sigma.exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(mean, log_sigma, x), expected)


def test_kl_equals_torch_distributions(generator):
    mean, log_var = torch.randn(2, 5, 4, generator=generator)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_var), expected)


def test_the_prior_itself_costs_nothing():
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max() == 0


def test_free_bits():
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]])
    assert free_bits(kl, 0.0).item() == pytest.approx(3.2)
    assert free_bits(kl, 0.5).item() == pytest.approx(3.5)  # 0.2 is raised to 0.5


def test_a_free_dimension_has_no_gradient():
    kl = torch.tensor([[0.1, 2.0]], requires_grad=True)
    free_bits(kl, 0.5).backward()
    assert kl.grad.tolist() == [[0.0, 1.0]]


LEVELS = torch.arange(256, dtype=torch.float64) / 255


def logistic_probability(mean, scale, level):
    """The mass of a bin by exact arithmetic on the cumulative distribution function, in Python floats."""

    def cdf(edge):
        return 1 / (1 + math.exp(-(edge - mean) / scale))

    upper = 1.0 if level == 255 else cdf((level + 0.5) / 255)
    lower = 0.0 if level == 0 else cdf((level - 0.5) / 255)
    return upper - lower


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0])
def test_logistic_equals_the_mass_of_each_bin(scale):
    for mean in (0.0, 0.31, 1.0):
        found = logistic_nll(
            torch.full((256, 1), mean).double(), torch.tensor(scale).double().log(), LEVELS.view(256, 1)
        )
        probability = torch.tensor([logistic_probability(mean, scale, k) for k in range(256)], dtype=torch.float64)
        likely = probability > 1e-8  # a difference of two floats is exact no further
        assert likely.sum() > 80
        torch.testing.assert_close(found[likely], -probability[likely].log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_scale", [-9.0, -4.0, 0.0, 5.0])
def test_logistic_probabilities_of_all_levels_add_up_to_one(log_scale):
    for mean in (-0.2, 0.0, 0.5004, 1.0):
        nll = logistic_nll(torch.full((256, 1), mean).double(), torch.tensor(log_scale).double(), LEVELS.view(256, 1))
        assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-9)
        assert (nll >= 0).all()


def test_logistic_stays_finite_and_sums_over_pixels(generator):
    mean = torch.rand(3, 1, 4, 4, generator=generator).requires_grad_()
    log_scale = torch.tensor(-14.0, requires_grad=True)
    x = torch.randint(0, 256, (3, 1, 4, 4), generator=generator) / 255
    nll = logistic_nll(mean, log_scale, x)
    assert nll.shape == (3,)
    nll.sum().backward()
    assert all(torch.isfinite(t).all() for t in (nll, mean.grad, log_scale.grad))
    assert logistic_nll(mean.bfloat16(), log_scale, x).dtype == torch.float32


def test_logistic_gradients(generator):
    mean = torch.rand(2, 5, dtype=torch.float64, generator=generator).requires_grad_()
    log_scale = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0, 3, 100, 200, 255], [255, 1, 0, 128, 90]]).double() / 255
    assert torch.autograd.gradcheck(lambda m, s: logistic_nll(m, s, x), (mean, log_scale))


def test_log_density_equals_torch_distributions(generator):
    z, mean, log_var = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(gaussian_log_density(z, mean, log_var), Normal(mean, (log_var / 2).exp()).log_prob(z))


def test_importance_bound_equals_a_loop(generator):
    log_weights = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    by_hand = [math.log(sum(math.exp(w) for w in log_weights[:, b].tolist()) / 7) for b in range(3)]
    expected = torch.tensor(by_hand, dtype=torch.float64)
    torch.testing.assert_close(importance_bound(log_weights), expected, rtol=1e-12, atol=1e-12)
    far = importance_bound(log_weights - 2000)  # whose weights are 0 in any precision
    torch.testing.assert_close(far, expected - 2000, rtol=1e-12, atol=1e-9)


def test_one_importance_sample_is_the_weight_itself(generator):
    log_weights = torch.randn(1, 4, generator=generator)
    assert torch.equal(importance_bound(log_weights), log_weights[0])


def slow_decomposition(z, mean, log_var, num_samples):
    """Chen et al.'s estimator, pair after pair in Python floats."""
    num_rows, num_dims = z.shape

    def density(i, j, k):
        return math.exp(Normal(mean[j, k], (log_var[j, k] / 2).exp()).log_prob(z[i, k]).item())

    mutual, total, own = 0.0, 0.0, 0.0
    for i in range(num_rows):
        log_posterior = sum(math.log(density(i, i, k)) for k in range(num_dims))
        joint = sum(math.prod(density(i, j, k) for k in range(num_dims)) for j in range(num_rows))
        log_joint = math.log(joint / (num_samples * num_rows))
        log_single = 0.0
        for k in range(num_dims):
            log_single += math.log(sum(density(i, j, k) for j in range(num_rows)) / (num_samples * num_rows))
        log_prior = sum(Normal(0.0, 1.0).log_prob(z[i, k]).item() for k in range(num_dims))
        mutual += (log_posterior - log_joint) / num_rows
        total += (log_joint - log_single) / num_rows
        own += (log_single - log_prior) / num_rows
    return mutual, total, own


def test_decomposition_equals_a_loop(generator):
    z, mean, log_var = torch.randn(3, 5, 3, dtype=torch.float64, generator=generator)
    found = decomposed_kl(z, mean, log_var, num_samples=40)
    for part, expected in zip(found, slow_decomposition(z, mean, log_var, 40), strict=True):
        assert part.item() == pytest.approx(expected, rel=1e-9)


def test_the_parts_add_up_to_the_sampled_kl(generator):
    z, mean, log_var = torch.randn(3, 6, 4, dtype=torch.float64, generator=generator)
    posterior, prior = Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)
    expected = (posterior.log_prob(z) - prior.log_prob(z)).sum(1).mean()
    torch.testing.assert_close(sum(decomposed_kl(z, mean, log_var, num_samples=100)), expected)


def test_the_size_of_the_training_set_has_no_gradient(generator):
    z, mean, log_var = torch.randn(3, 6, 4, dtype=torch.float64, generator=generator)
    gradients = []
    for num_samples in (6, 50_000):
        leaf = z.clone().requires_grad_()
        kl = decomposed_kl(leaf, mean, log_var, num_samples=num_samples)
        (kl.index_code_mi + 6 * kl.total_correlation + 2 * kl.dimension_kl).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_a_batch_larger_than_its_training_set_is_refused():
    with pytest.raises(ValueError, match="A batch of 4 images"):
        decomposed_kl(*torch.zeros(3, 4, 2), num_samples=3)


@pytest.mark.parametrize("log_sigma", [-8.0, -3.0, 0.0, 3.0])
def test_the_256_levels_of_a_gaussian_have_probability_one(log_sigma):
    levels = torch.arange(256).double().view(-1, 1) / 255
    for mean in (0.0, 0.003, 0.5, 1.0):
        nll = gaussian_level_nll(torch.full_like(levels, mean), torch.tensor(log_sigma), levels)
        assert (nll >= 0).all() and nll.isfinite().all()
        assert float(torch.exp(-nll).sum()) == pytest.approx(1)
    expected = -norm.logcdf(0.5 / 255 / math.exp(log_sigma))  # the lowest level has all mass below it
    found = gaussian_level_nll(torch.zeros(1, 1), torch.tensor(log_sigma), torch.zeros(1, 1))
    assert float(found) == pytest.approx(expected, rel=1e-5)
