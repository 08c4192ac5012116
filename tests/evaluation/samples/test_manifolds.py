"""Precision, recall, density and coverage, against loops over pairs and cases whose answer is known."""

import pytest
import torch

from ssl_lab.evaluation.samples import manifolds
from ssl_lab.evaluation.samples.manifolds import fit_manifold, support_metrics


def metrics(fake, real):
    return support_metrics(fit_manifold(fake), fit_manifold(real))


def by_loops(fake, real):
    def distance(a, b):
        return float((a - b).square().sum().sqrt())

    def reach(x, k):
        return [sorted(distance(a, b) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)]

    real_3, fake_3, real_5 = reach(real, 3), reach(fake, 3), reach(real, 5)
    d = [[distance(y, x) for x in real] for y in fake]
    samples, images = range(len(fake)), range(len(real))
    return {
        "precision": sum(any(d[j][i] <= real_3[i] for i in images) for j in samples) / len(fake),
        "recall": sum(any(d[j][i] <= fake_3[j] for j in samples) for i in images) / len(real),
        "density": sum(d[j][i] <= real_5[i] for i in images for j in samples) / (5 * len(fake)),
        "coverage": sum(any(d[j][i] <= real_5[i] for j in samples) for i in images) / len(real),
    }


@pytest.mark.parametrize(("num_fake", "num_real", "shift"), [(40, 40, 0.0), (30, 50, 0.8), (50, 20, 2.0)])
def test_metrics_equal_loops_over_all_pairs(monkeypatch, num_fake, num_real, shift):
    monkeypatch.setattr(manifolds, "_CHUNK", 16)
    generator = torch.Generator().manual_seed(num_fake)
    fake = torch.randn(num_fake, 4, generator=generator) + shift
    real = torch.randn(num_real, 4, generator=generator)
    found = metrics(fake, real)
    assert found == pytest.approx(by_loops(fake.double(), real.double()), abs=1e-12)
    assert 0 < found["precision"] < 1


def test_far_from_the_origin_distances_keep_their_digits():
    generator = torch.Generator().manual_seed(0)
    fake, real = (torch.randn(40, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    assert metrics(fake + 1e4, real + 1e4) == metrics(fake, real)


def test_the_same_images_are_precise_and_cover_all():
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    found = metrics(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1.0
    assert found["density"] >= 1.0


def test_samples_of_one_kind_are_precise_but_cover_little():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.eye(4).mul(100).repeat_interleave(50, 0)
    real = kinds + torch.randn(200, 4, generator=generator)
    fake = kinds[:1] + 0.5 * torch.randn(200, 4, generator=generator)
    found = metrics(fake, real)
    assert found["precision"] > 0.9 and found["density"] > 0.9
    assert found["recall"] <= 0.25 and found["coverage"] <= 0.25


def test_samples_far_away_are_neither():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert metrics(x + 100, x) == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}


def test_two_sets_of_one_distribution_have_density_one_on_average():
    generator = torch.Generator().manual_seed(0)
    found = metrics(*(torch.randn(1000, 8, generator=generator) for _ in range(2)))
    assert found["density"] == pytest.approx(1.0, abs=0.05)
    assert found["coverage"] == pytest.approx(1 - 0.5**5, abs=0.02)


def test_one_outlier_among_real_images_makes_everything_precise_but_not_dense():
    """Naeem et al., figure 1: precision is fooled by a ball around an outlier, density hardly."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 2, generator=generator)
    real[0] = 60.0
    fake = torch.randn(200, 2, generator=generator) + 20
    found = metrics(fake, real)
    assert found["precision"] == 1.0 and found["density"] <= 0.2


def test_three_images_are_enough():
    assert metrics(torch.randn(3, 2), torch.zeros(3, 2))["recall"] >= 0
