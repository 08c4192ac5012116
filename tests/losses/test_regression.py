import pytest
import torch

from ssl_lab.losses.regression import negative_cosine, normalised_mse, spread


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_negative_cosine_equals_the_slow_loop(pair):
    p, z = pair
    cosines = [(p[i] @ z[i]) / (p[i] @ p[i]).sqrt() / (z[i] @ z[i]).sqrt() for i in range(len(p))]
    torch.testing.assert_close(negative_cosine(p, z), -sum(cosines) / len(p))


def test_negative_cosine_equals_lightlys(pair):
    lightly = pytest.importorskip("lightly.loss")
    torch.testing.assert_close(negative_cosine(*pair), lightly.NegativeCosineSimilarity()(*pair))


def test_normalised_mse_equals_the_slow_loop(pair):
    p, z = pair
    distances = [(p[i] / p[i].norm() - z[i] / z[i].norm()).square().sum() for i in range(len(p))]
    torch.testing.assert_close(normalised_mse(p, z), sum(distances) / len(p))


@pytest.mark.parametrize("loss", [negative_cosine, normalised_mse])
def test_is_invariant_to_swap_permutation_and_scale(loss, pair):
    p, z = pair
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(z, p), loss(p, z))
    torch.testing.assert_close(loss(p[order], z[order]), loss(p, z))
    torch.testing.assert_close(loss(3 * p, z / 7), loss(p, z))


def test_closed_forms_at_the_extremes():
    x = torch.eye(3)
    assert negative_cosine(x, x).item() == pytest.approx(-1)
    assert normalised_mse(x, x).item() == pytest.approx(0)
    assert normalised_mse(x, x.roll(1, 0)).item() == pytest.approx(2)
    assert normalised_mse(x, -x).item() == pytest.approx(4)


@pytest.mark.parametrize("loss", [negative_cosine, normalised_mse])
def test_gradient(loss, pair):
    p, z = (x.requires_grad_() for x in pair)
    assert torch.autograd.gradcheck(loss, (p, z))
    loss(p, z.detach()).backward()
    assert z.grad is None


@pytest.mark.parametrize("loss", [negative_cosine, normalised_mse, lambda p, z: spread(p)])
def test_is_computed_in_fp32_under_autocast_and_stays_finite(loss, pair):
    p, z = (x.bfloat16() for x in pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(p, z)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(p.float(), z.float()), rtol=0, atol=0)
    assert torch.isfinite(loss(torch.full((4, 3), 1e20), torch.zeros(4, 3)))


def test_refuses_projections_of_unequal_shape(pair):
    with pytest.raises(ValueError, match="equal shapes"):
        negative_cosine(pair[0], pair[1][:, :3])


def test_spread_is_one_all_around_and_zero_after_collapse():
    z = torch.randn(4096, 32, generator=torch.Generator().manual_seed(0))
    assert spread(z).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(8, 32) * torch.arange(1, 9).unsqueeze(1)).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(spread(z), spread(5 * z))
    assert not spread(z.requires_grad_()).requires_grad
