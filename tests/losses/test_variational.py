import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from ssl_lab.losses.variational import bernoulli_nll, free_bits, gaussian_kl, gaussian_nll


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_bernoulli_equals_torch_distributions(generator):
    logits = torch.randn(3, 1, 4, 4, generator=generator)
    x = (torch.rand(3, 1, 4, 4, generator=generator) > 0.5).float()
    expected = -Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


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
