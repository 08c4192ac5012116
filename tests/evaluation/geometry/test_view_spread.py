import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from scipy.linalg import sqrtm

from ssl_lab.evaluation.geometry.view_spread import Alignment, LiDAR

CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alignment(views):
    return Alignment().score(views)["alignment/loss"]


def lidar(views, **settings):
    return LiDAR(**settings).score(views)["lidar/rank"]


def test_alignment_equals_a_slow_loop():
    views = randn(3, 20, 5) + 1
    total, count = 0.0, 0
    for n in range(20):
        for a in range(3):
            for b in range(a):
                u, v = (F.normalize(views[k, n], dim=0) for k in (a, b))
                total += float((u - v).square().sum())
                count += 1
    assert alignment(views) == pytest.approx(total / count, rel=1e-9)


def test_alignment_has_its_closed_forms():
    x = randn(30, 6)
    assert alignment(torch.stack([x, 5 * x])) == pytest.approx(0, abs=1e-12)
    assert alignment(torch.stack([x, -x])) == pytest.approx(4, rel=1e-12)
    assert alignment(randn(2, 5000, 400)) == pytest.approx(2, rel=1e-2), "unrelated views"


def test_alignment_of_features_without_a_direction_is_the_published_one():
    views = randn(2, 10, 6)
    views[:, :4] = 0
    views[1, 4] = 0
    unit = F.normalize(views, dim=2)
    assert alignment(views) == pytest.approx(float((unit[0] - unit[1]).norm(dim=1).square().mean()), rel=1e-9)


def lidar_by_numpy(views, delta):
    """The matrix of discriminant analysis by its definition, with roots from scipy."""
    x = views.numpy()
    num_views, num_samples, dim = x.shape
    mean = x.mean((0, 1))
    between, within = np.zeros((dim, dim)), np.zeros((dim, dim))
    for n in range(num_samples):
        centre = x[:, n].mean(0)
        between += np.outer(centre - mean, centre - mean) / num_samples
        for v in range(num_views):
            within += np.outer(x[v, n] - centre, x[v, n] - centre) / (num_samples * num_views)
    root = np.linalg.inv(sqrtm(within + delta * np.trace(within) / dim * np.eye(dim)).real)
    values = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    p = values / values.sum()
    return math.exp(-sum(q * math.log(q) for q in p if q > 0))


@pytest.mark.parametrize("delta", [1e-4, 0.5])
def test_lidar_equals_numpy(delta):
    samples = randn(1, 40, 6) * torch.tensor([4, 2, 1, 1, 0.3, 0])
    views = samples + randn(5, 40, 6, seed=1) @ randn(6, 6, seed=2)
    assert lidar(views, delta=delta) == pytest.approx(lidar_by_numpy(views, delta), rel=1e-9)


def crossed(strengths, num_samples=64, num_views=4):
    """Views whose class means have the given strengths along orthogonal axes, and whose noise is exactly white."""
    dim = len(strengths)
    signs = torch.linalg.qr(torch.cat([torch.ones(num_samples, 1).double(), randn(num_samples, dim)], 1)).Q[:, 1:]
    noise = randn(num_views, num_samples, dim, seed=1)
    noise = (noise - noise.mean(0)).flatten(0, 1)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(noise.T @ noise), noise.T, upper=False).T
    return signs * torch.tensor(strengths, dtype=torch.float64) + white.unflatten(0, (num_views, num_samples))


def test_lidar_of_equally_strong_directions_is_their_number():
    assert lidar(crossed([2.0] * 5)) == pytest.approx(5, rel=1e-6)
    assert lidar(crossed([2.0, 2.0, 0.0, 0.0, 0.0])) == pytest.approx(2, rel=1e-6)
    assert lidar(crossed([3.0, 0.0, 0.0])) == pytest.approx(1, rel=1e-6)


def test_lidar_is_the_exponential_of_an_entropy_of_eigenvalues():
    assert lidar(crossed([2.0, 2**0.5, 2**0.5])) == pytest.approx(2**0.5 * 4**0.5, rel=1e-6)


def test_lidar_sees_no_invertible_map_of_the_features():
    views = crossed([2.0, 1.0, 0.5])
    assert lidar(1e-4 * views) == pytest.approx(lidar(views), rel=1e-9)
    assert lidar(views @ randn(3, 3, seed=5), delta=1e-10) == pytest.approx(lidar(views, delta=1e-10), rel=1e-5)


def test_lidar_counts_what_views_leave_alone_and_rank_does_not():
    """Ten noisy directions beside two that tell samples apart."""
    samples = torch.cat([3 * randn(1, 400, 2), torch.zeros(1, 400, 10)], 2)
    views = samples + randn(20, 400, 12, seed=1)
    assert 2 < lidar(views) < 2.6


def test_lidar_of_collapsed_features_is_nothing():
    assert lidar(torch.full((4, 30, 6), 0.3)) == 0
    same_for_all_samples = randn(4, 1, 6).expand(4, 30, 6)
    assert lidar(same_for_all_samples.float()) == 0


def test_lidar_of_features_that_views_do_not_change_is_their_rank():
    x = torch.linalg.qr(torch.cat([torch.ones(30, 1).double(), randn(30, 4)], 1)).Q[:, 1:]
    assert lidar(x.expand(3, 30, 4)) == pytest.approx(4, rel=1e-6)


def darken(batch, num_views):
    """Views of pixels: darkened at random."""
    shape = (num_views, len(batch["image"]), 1)
    return batch["image"].flatten(1).float() * (0.5 + 0.5 * torch.rand(shape))


@pytest.mark.parametrize("protocol", [Alignment(num_samples=30), LiDAR(num_samples=30, num_views=4)])
def test_samples_and_views_are_seeded_and_the_global_stream_is_left_alone(protocol):
    seen = []

    def watched(batch, num_views):
        seen.append(batch["index"])
        return darken(batch, num_views)

    state = torch.random.get_rng_state()
    datamodule = ArrayImages(labels=False, eval_batch_size=10)
    first = protocol.run(watched, datamodule, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = torch.cat(seen)
    assert len(rows) == 30
    assert rows.min() < 16 and rows.max() > 48
    assert protocol.run(darken, datamodule, device=CPU) == first
    other = type(protocol)(num_samples=30, num_views=protocol.num_views, seed=1)
    assert other.run(darken, datamodule, device=CPU) != first


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="num_views=1"):
        LiDAR(num_views=1)
    with pytest.raises(ValueError, match="num_samples=1"):
        Alignment(num_samples=1)
    with pytest.raises(ValueError, match="delta > 0"):
        LiDAR(delta=0)
