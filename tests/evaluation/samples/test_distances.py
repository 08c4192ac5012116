import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from ssl_lab.evaluation.samples.distances import draw_subsets, fit_gaussian, frechet_distance, kernel_distance


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, std, *, num_samples=50, seed=0):
    """Samples whose mean and covariance diag(std^2) are exact."""
    x = randn(num_samples, len(mean), seed=seed)
    x = x - x.mean(0)
    white = torch.linalg.qr(x).Q * (num_samples - 1) ** 0.5
    return white * torch.tensor(std, dtype=torch.float64) + torch.tensor(mean, dtype=torch.float64)


def frechet_by_scipy(x, y):
    cov_x, cov_y = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    root = sqrtm(cov_x @ cov_y).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + float((cov_x + cov_y - 2 * root).trace())


def test_frechet_distance_of_gaussians_with_the_same_axes_has_a_closed_form():
    mean_x, std_x = [0.0, 1.0, -2.0], [1.0, 2.0, 0.5]
    mean_y, std_y = [1.0, 1.0, 2.0], [1.0, 0.1, 3.0]
    expected = sum((a - b) ** 2 for a, b in zip(mean_x + std_x, mean_y + std_y, strict=True))
    found = frechet_distance(with_moments(mean_x, std_x), with_moments(mean_y, std_y, num_samples=70, seed=1))
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("counts", [(40, 60), (9, 60)])
def test_frechet_distance_equals_the_matrix_root_of_scipy(counts):
    mix = randn(8, 8, seed=3)
    x, y = randn(counts[0], 8) @ mix, randn(counts[1], 8, seed=1) + 0.3
    assert frechet_distance(x, y) == pytest.approx(frechet_by_scipy(x, y), rel=1e-6)


def test_frechet_distance_with_fewer_samples_than_features():
    x, y = randn(10, 30), randn(12, 30, seed=1)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    trace = torch.linalg.eigvals(cov_x @ cov_y).real.clamp(min=0).sqrt().sort().values[-9:].sum()
    expected = float((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_symmetric_and_zero_to_itself():
    x, y = randn(40, 8), 2 * randn(50, 8, seed=1)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_kernel_distance_equals_scikit_learns_kernel_without_the_diagonal():
    x, y = randn(20, 5), randn(20, 5, seed=1) + 0.5
    within = 0.0
    for z in (x, y):
        k = polynomial_kernel(z, degree=3, gamma=1 / 5, coef0=1)
        within += (k.sum() - k.trace()) / (20 * 19)
    expected = within - 2 * polynomial_kernel(x, y, degree=3, gamma=1 / 5, coef0=1).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)  # every subset is the whole


def test_kernel_distance_is_unbiased():
    """Its mean over pairs of sets from one distribution is 0, within three standard errors."""
    pairs = [(randn(30, 5, seed=k), randn(30, 5, seed=1000 + k)) for k in range(200)]
    found = torch.tensor([kernel_distance(x, y, num_subsets=1) for x, y in pairs])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 200**0.5
    assert found.min() < 0


def test_kernel_distance_of_subsets_is_near_that_of_all():
    x, y = randn(300, 5), randn(300, 5, seed=1) + 0.5
    whole = kernel_distance(x, y, num_subsets=1)
    assert kernel_distance(x, y, num_subsets=1000, subset_size=50) == pytest.approx(whole, rel=0.05)
    assert kernel_distance(x, y, subset_size=50) == kernel_distance(x, y, subset_size=50)


def test_moments_known_before_give_the_same_distance():
    x, y = randn(40, 8), randn(60, 8, seed=1) + 0.3
    assert frechet_distance(fit_gaussian(x), fit_gaussian(y)) == frechet_distance(x, y)


@pytest.mark.parametrize(("num_subsets", "subset_size"), [(7, 20), (100, 10), (3, 1000)])
def test_kernel_distance_equals_a_loop_over_pairs_of_each_subset(num_subsets, subset_size):
    """Whether every pair is computed once or subset after subset."""
    x, y = randn(60, 5), randn(45, 5, seed=1) + 0.5
    settings = {"num_subsets": num_subsets, "subset_size": subset_size, "seed": 3}
    expected = 0.0
    for rows_x, rows_y in zip(*draw_subsets(60, 45, **settings), strict=True):
        a, b = x[rows_x], y[rows_y]
        size = len(a)
        assert size == min(subset_size, 45) == len(rows_x.unique()) == len(rows_y.unique())
        pairs = {(i, j): 0.0 for i in range(3) for j in range(3)}
        for i in range(size):
            for j in range(size):
                if i != j:
                    pairs[0, 0] += float((a[i] @ a[j] / 5 + 1) ** 3) / (size * (size - 1))
                    pairs[1, 1] += float((b[i] @ b[j] / 5 + 1) ** 3) / (size * (size - 1))
                pairs[0, 1] += float((a[i] @ b[j] / 5 + 1) ** 3) / size**2
        expected += (pairs[0, 0] + pairs[1, 1] - 2 * pairs[0, 1]) / num_subsets
    assert kernel_distance(x, y, **settings) == pytest.approx(expected, rel=1e-6, abs=1e-12)
