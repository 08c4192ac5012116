import math

import pytest
import torch
import torch.nn.functional as F

from ssl_lab.losses.adversarial import gradient_penalty, hinge, least_squares, non_saturating, r1, wasserstein

REAL, FAKE = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-3.0, 0.2, 1.5])


def test_non_saturating_is_binary_cross_entropy():
    loss = non_saturating()
    bce = F.binary_cross_entropy_with_logits
    expected = bce(REAL, torch.ones(3)) + bce(FAKE, torch.zeros(3))
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), expected)
    torch.testing.assert_close(loss.generator(FAKE), bce(FAKE, torch.ones(3)))


def test_an_undecided_discriminator_pays_two_log_two():
    assert non_saturating().discriminator(torch.zeros(4), torch.zeros(4)).item() == pytest.approx(2 * math.log(2))


def test_hinge_by_hand():
    loss = hinge()
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx((0 + 2 + 0.5) / 3 + (0 + 1.2 + 2.5) / 3)
    assert loss.generator(FAKE).item() == pytest.approx(-(-3 + 0.2 + 1.5) / 3)


def test_wasserstein_by_hand_and_blind_to_a_shift_of_all_logits():
    loss = wasserstein()
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx((-3 + 0.2 + 1.5) / 3 - (2 - 1 + 0.5) / 3)
    assert loss.discriminator(REAL + 7, FAKE + 7).item() == pytest.approx(loss.discriminator(REAL, FAKE).item())
    assert loss.generator(FAKE).item() == pytest.approx(-(-3 + 0.2 + 1.5) / 3)


def test_least_squares_by_hand():
    loss = least_squares()
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx((1 + 4 + 0.25) / 6 + (9 + 0.04 + 2.25) / 6)
    assert loss.generator(FAKE).item() == pytest.approx((16 + 0.64 + 0.25) / 6)
    assert loss.discriminator(torch.ones(2), torch.zeros(2)) == 0


@pytest.mark.parametrize("make", [non_saturating, hinge, wasserstein, least_squares])
def test_extreme_logits_stay_finite(make):
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(make().discriminator(huge, -huge))
    assert torch.isfinite(make().generator(huge))


@pytest.mark.parametrize("make", [non_saturating, hinge, wasserstein, least_squares])
def test_losses_keep_fp64_and_raise_bf16_to_fp32(make):
    for given, computed in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        assert make().discriminator(REAL.to(given), FAKE.to(given)).dtype == computed
        assert make().generator(FAKE.to(given)).dtype == computed


def images(seed):
    return torch.rand(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SHARE = torch.linspace(0, 1, 5, dtype=torch.float64)


def test_penalties_of_a_linear_critic_know_its_slope():
    w = torch.randn(18, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def critic(x):
        return x.flatten(1) @ w + 3

    penalty = gradient_penalty(critic, images(1), images(2), SHARE)
    torch.testing.assert_close(penalty, (w.norm() - 1) ** 2, rtol=0, atol=1e-12)
    expected = 2 * (w.norm() - 1) * w / w.norm()
    torch.testing.assert_close(torch.autograd.grad(penalty, w)[0], expected, rtol=0, atol=1e-12)
    penalty = r1(critic, images(1))
    torch.testing.assert_close(penalty, w.square().sum(), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(penalty, w)[0], 2 * w, rtol=0, atol=1e-12)


def test_penalties_of_a_quadratic_critic_are_taken_at_the_right_images():
    matrix = torch.randn(18, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    real, fake = images(1), images(2)

    def critic(x):
        return 0.5 * ((x.flatten(1) @ matrix) * x.flatten(1)).sum(1)

    symmetric = 0.5 * (matrix + matrix.T)  # the gradient of x'Ax/2
    mixed = torch.stack([u * a + (1 - u) * b for u, a, b in zip(SHARE, real, fake, strict=True)]).flatten(1)
    expected = ((mixed @ symmetric).norm(dim=1) - 1).square().mean()
    found = gradient_penalty(critic, real, fake, SHARE)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    found_gradient, expected_gradient = (torch.autograd.grad(value, matrix)[0] for value in (found, expected))
    torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=1e-9)

    expected = (real.flatten(1) @ (0.5 * (matrix + matrix.T))).square().sum(1).mean()
    found = r1(critic, real)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    found_gradient, expected_gradient = (torch.autograd.grad(value, matrix)[0] for value in (found, expected))
    torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=1e-9)


def slopes_by_differences(critic, x, step=1e-5):
    """Central differences in every pixel, shape (B, pixels)."""
    columns = []
    for pixel in range(x[0].numel()):
        shift = torch.zeros_like(x[0]).flatten()
        shift[pixel] = step
        shift = shift.view_as(x[0])
        columns.append((critic(x + shift) - critic(x - shift)) / (2 * step))
    return torch.stack(columns, 1)


def test_penalties_of_a_network_equal_finite_differences():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(36, 1)
    ).double()
    real, fake = images(1), images(2)

    def critic(x):
        return network(x).squeeze(1)

    with torch.no_grad():
        share = SHARE.view(-1, 1, 1, 1)
        between = slopes_by_differences(critic, share * real + (1 - share) * fake)
        at_real = slopes_by_differences(critic, real)
    expected = (between.norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(gradient_penalty(critic, real, fake, SHARE).detach(), expected, rtol=0, atol=1e-6)
    expected = at_real.square().sum(1).mean()
    torch.testing.assert_close(r1(critic, real).detach(), expected, rtol=0, atol=1e-6)

    # and their gradients in one weight, by differences of the whole penalty
    for penalty in (lambda: gradient_penalty(critic, real, fake, SHARE), lambda: r1(critic, real)):
        weight = network[0].weight
        found = torch.autograd.grad(penalty(), weight)[0][1, 0, 1, 1]
        values = []
        for shift in (1e-5, -2e-5):
            with torch.no_grad():
                weight[1, 0, 1, 1] += shift
            values.append(penalty().detach())
        with torch.no_grad():
            weight[1, 0, 1, 1] += 1e-5
        torch.testing.assert_close(found, (values[0] - values[1]) / 2e-5, rtol=0, atol=1e-6)


def test_a_flat_critic_is_pulled_towards_slope_one_without_nan():
    w = torch.zeros(18, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, images(1), images(2), SHARE)
    assert penalty.item() == 1
    assert torch.isfinite(torch.autograd.grad(penalty, w)[0]).all()


def test_penalties_leave_autocast_and_reach_no_generator():
    w = torch.randn(18, requires_grad=True)
    real, fake = images(1).float(), images(2).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradient_penalty(lambda x: x.flatten(1) @ w, real, fake, SHARE), r1(lambda x: x.flatten(1) @ w, real)
    outside = gradient_penalty(lambda x: x.flatten(1) @ w, real, fake, SHARE), r1(lambda x: x.flatten(1) @ w, real)
    assert inside == outside
    assert torch.autograd.grad(inside[0], fake, allow_unused=True) == (None,)
