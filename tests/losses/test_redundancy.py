import pytest
import torch

from ssl_lab.losses.redundancy import barlow_twins, vicreg


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    return [z, 0.6 * z + 0.5 * torch.randn(7, 4, generator=generator, dtype=torch.float64)]


def slow_barlow_twins(z_a, z_b):
    """Equation 1 of the paper, one pair of dimensions at a time."""
    invariance, redundancy = 0.0, 0.0
    for i in range(z_a.shape[1]):
        for j in range(z_a.shape[1]):
            a, b = z_a[:, i] - z_a[:, i].mean(), z_b[:, j] - z_b[:, j].mean()
            c = (a * b).sum() / ((a.square().sum() + 7e-5) * (b.square().sum() + 7e-5)).sqrt()  # B times 1e-5
            if i == j:
                invariance += (1 - c) ** 2
            else:
                redundancy += c**2
    return invariance, redundancy


def test_barlow_twins_equals_the_slow_loop(views):
    for found, expected in zip(barlow_twins(*views), slow_barlow_twins(*views), strict=True):
        torch.testing.assert_close(found, expected)


def test_barlow_twins_has_a_closed_form_for_whitened_and_for_copied_dimensions():
    walsh = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    white = walsh[:, 1:]  # columns are uncorrelated, of mean 0 and variance 1
    assert [term.item() for term in barlow_twins(white, white)] == pytest.approx([0, 0], abs=1e-8)
    assert [term.item() for term in barlow_twins(white, -white)] == pytest.approx([3 * 4, 0], rel=1e-4)
    copied = white[:, :1].expand(-1, 3)
    assert [term.item() for term in barlow_twins(copied, copied)] == pytest.approx([0, 6], rel=1e-4, abs=1e-8)


def test_barlow_twins_is_invariant_to_swap_order_shift_and_scale(views):
    z_a, z_b = (1000 * z for z in views)  # far from the constant in the denominator
    loss = torch.stack(barlow_twins(z_a, z_b))
    rows = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    columns = torch.tensor([2, 0, 3, 1])
    changed = [(z_b, z_a), (z_a[rows], z_b[rows]), (z_a[:, columns], z_b[:, columns]), (z_a * 3 + 1, z_b / 2 - 5)]
    for pair in changed:
        torch.testing.assert_close(torch.stack(barlow_twins(*pair)), loss)


def test_barlow_twins_equals_lightly(views):
    lightly = pytest.importorskip("lightly.loss")
    invariance, redundancy = barlow_twins(*views)
    torch.testing.assert_close(invariance + 0.0051 * redundancy, lightly.BarlowTwinsLoss(lambda_param=0.0051)(*views))


def slow_vicreg(z_a, z_b):
    """Equations 1 to 5 of the paper, one pair of dimensions at a time; means as in the published code."""
    num_samples, dim = z_a.shape
    invariance = sum((a - b).square().sum() for a, b in zip(z_a, z_b, strict=True)) / (num_samples * dim)
    variance, covariance = 0.0, 0.0
    for z in (z_a, z_b):
        for i in range(dim):
            variance += (1 - (z[:, i].var() + 1e-4).sqrt()).clamp(min=0) / (2 * dim)
            for j in set(range(dim)) - {i}:
                products = (z[:, i] - z[:, i].mean()) * (z[:, j] - z[:, j].mean())
                covariance += (products.sum() / (num_samples - 1)) ** 2 / dim
    return invariance, variance, covariance


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_vicreg_equals_the_slow_loop(views, scale):
    views = [z * scale for z in views]
    for found, expected in zip(vicreg(*views), slow_vicreg(*views), strict=True):
        torch.testing.assert_close(found, expected)


def test_vicreg_has_a_closed_form_for_whitened_and_for_copied_dimensions():
    walsh = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    white = walsh[:, 1:]  # uncorrelated columns of mean 0 and unbiased variance 4/3
    assert [term.item() for term in vicreg(white, -white)] == pytest.approx([4, 0, 0], abs=1e-12)
    copied = white[:, :1].expand(-1, 3)
    assert [term.item() for term in vicreg(copied, copied)] == pytest.approx([0, 0, 2 * 2 * (4 / 3) ** 2])
    assert [term.item() for term in vicreg(0 * white, 0 * white)] == pytest.approx([0, 0.99, 0])


def test_vicreg_is_invariant_to_swap_order_and_shift(views):
    z_a, z_b = views
    terms = torch.stack(vicreg(z_a, z_b))
    rows = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    columns = torch.tensor([2, 0, 3, 1])
    changed = [(z_b, z_a), (z_a[rows], z_b[rows]), (z_a[:, columns], z_b[:, columns]), (z_a + 5, z_b + 5)]
    for pair in changed:
        torch.testing.assert_close(torch.stack(vicreg(*pair)), terms)


def test_vicreg_equals_lightly(views):
    lightly = pytest.importorskip("lightly.loss")
    weights = torch.tensor([25.0, 25.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weights @ torch.stack(vicreg(*views)), lightly.VICRegLoss()(*views))


TERMS = [barlow_twins, vicreg]


@pytest.mark.parametrize("terms", TERMS)
def test_gradient(terms, views):
    assert torch.autograd.gradcheck(terms, [z.requires_grad_() for z in views])


@pytest.mark.parametrize("terms", TERMS)
def test_is_computed_in_fp32_under_autocast(terms, views):
    views = [z.float() for z in views]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = terms(*views)
    for found, expected in zip(inside, terms(*views), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("value", [0.0, 1e10])
def test_collapsed_projections_have_finite_terms_and_gradients(terms, value):
    views = [torch.full((4, 3), value, requires_grad=True) for _ in range(2)]
    values = terms(*views)
    sum(values).backward()
    assert all(torch.isfinite(x).all() for x in [*values, *(z.grad for z in views)])


@pytest.mark.parametrize("terms", TERMS)
def test_refuses_bad_input(terms, views):
    for pair in [(views[0], views[1][:3]), (views[0][0], views[1][0]), (views[0][:1], views[1][:1])]:
        with pytest.raises(ValueError, match="equal shapes"):
            terms(*pair)
