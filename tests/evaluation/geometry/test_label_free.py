import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages

from ssl_lab.evaluation.geometry.label_free import (
    FeatureStd,
    RankMe,
    Uniformity,
    effective_rank,
    normalised_std,
    some_rows,
)

CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(rows, columns, seed=0):
    return torch.linalg.qr(randn(rows, columns, seed=seed).double()).Q


def with_singular_values(values, num_samples=40):
    left, right = orthonormal(num_samples, len(values)), orthonormal(len(values), len(values), seed=1)
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def rankme(x, **settings):
    return RankMe(**settings).score(x)["rankme/rank"]


def uniformity(x, **settings):
    return Uniformity(**settings).score(x)["uniformity/loss"]


def std(x):
    return FeatureStd().score(x)["feature_std/mean"]


def rankme_by_numpy(x):
    """Singular values as roots of the Gram matrix's eigenvalues."""
    gram = x.double().numpy().T @ x.double().numpy()
    sigma = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    p = sigma / sigma.sum()
    return math.exp(-sum(q * math.log(q) for q in p if q > 0))


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_rankme_equals_numpy(shape):
    x = randn(*shape) @ randn(shape[1], shape[1], seed=1) + 0.3
    assert rankme(x) == pytest.approx(rankme_by_numpy(x), rel=1e-5)


def test_rankme_of_isotropic_features_is_their_width():
    assert rankme(with_singular_values([3.0] * 7)) == pytest.approx(7, rel=1e-9)
    assert rankme(randn(20_000, 16)) == pytest.approx(16, rel=1e-3)


def test_rankme_of_one_direction_is_one():
    assert rankme(randn(30, 1).double() @ randn(1, 9, seed=1).double()) == pytest.approx(1, abs=1e-9)
    assert rankme(torch.full((30, 9), 0.7)) == pytest.approx(1, abs=1e-6)
    assert rankme(torch.zeros(30, 9)) == 0


def test_rankme_is_the_exponential_of_an_entropy():
    expected = 2**0.5 * 4**0.5  # p = 1/2, 1/4, 1/4
    assert rankme(with_singular_values([2.0, 1.0, 1.0])) == pytest.approx(expected, rel=1e-9)
    assert float(effective_rank(torch.tensor([0.5, 0.25, 0.25, 0.0]))) == pytest.approx(expected, rel=1e-6)


def test_rankme_sees_neither_the_scale_nor_a_rotation():
    x = randn(60, 6) + 0.5
    assert rankme(100 * x) == pytest.approx(rankme(x), rel=1e-5)
    assert rankme(x.double() @ orthonormal(6, 6)) == pytest.approx(rankme(x), rel=1e-5)


def uniformity_by_loop(x):
    x = F.normalize(x.double(), dim=1).tolist()
    potentials = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(u, v, strict=True))) for i, u in enumerate(x) for v in x[i + 1 :]
    ]
    return math.log(sum(potentials) / len(potentials))


def test_uniformity_equals_a_slow_loop():
    x = randn(40, 5) + 0.4
    assert uniformity(x) == pytest.approx(uniformity_by_loop(x), rel=1e-5)


def test_uniformity_compares_all_pairs_across_chunks():
    x = randn(1500, 4)
    distance = torch.pdist(F.normalize(x.double(), dim=1))
    assert uniformity(x) == pytest.approx(float(torch.exp(-2 * distance.square()).mean().log()), rel=1e-5)


def test_uniformity_has_its_closed_forms():
    assert uniformity(torch.ones(10, 6)) == pytest.approx(0, abs=1e-5)
    two_poles = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert uniformity(two_poles) == pytest.approx(-8, rel=1e-6)
    assert uniformity(torch.eye(9)) == pytest.approx(-4, rel=1e-6)
    circle = torch.linspace(0, 2 * math.pi, 2001)[:-1]
    # The mean of exp(4 cos - 4) over angles is exp(-4) I_0(4).
    expected = -4 + math.log(float(torch.special.i0(torch.tensor(4.0, dtype=torch.float64))))
    assert uniformity(torch.stack([circle.cos(), circle.sin()], 1)) == pytest.approx(expected, abs=3e-3)


def test_std_equals_numpy():
    x = randn(50, 8) * 3 + 1
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    assert std(x) == pytest.approx(unit.std(0).mean() * 8**0.5, rel=1e-5)


def test_std_is_nothing_for_collapsed_and_one_for_even_features():
    assert std(torch.full((20, 12), 0.3)) == pytest.approx(0, abs=1e-5)
    assert std(torch.arange(1.0, 21).unsqueeze(1) * torch.rand(1, 12)) == pytest.approx(0, abs=1e-5)
    axes = torch.cat([torch.eye(6), -torch.eye(6)])
    assert std(axes) == pytest.approx(1, rel=1e-6)
    assert std(randn(20_000, 32)) == pytest.approx(1, rel=1e-2)
    assert float(normalised_std(randn(100, 4).bfloat16())) < 1


def test_a_subset_is_drawn_all_over_the_split_and_always_the_same():
    x = torch.arange(1000.0).unsqueeze(1)
    rows = some_rows(x, 100)
    assert rows.shape == (100, 1)
    assert len(rows.unique()) == 100
    assert abs(float(rows.mean()) - 500) < 100
    assert torch.equal(rows, some_rows(x, 100))
    assert some_rows(x, 1000) is x
    features = randn(300, 5)
    assert rankme(features, num_samples=50) == rankme(some_rows(features, 50))


@pytest.mark.parametrize("protocol", [RankMe, Uniformity])
def test_a_single_sample_is_refused(protocol):
    with pytest.raises(ValueError, match="num_samples=1"):
        protocol(num_samples=1)


@pytest.mark.parametrize("split", ["val", "test"])
def test_they_look_at_the_scored_split_alone_and_need_no_label(split):
    datamodule = ArrayImages(labels=False)
    asked = []

    def pixels(batch):
        asked.append(batch)
        return batch["image"].flatten(1).float()

    found = FeatureStd().run(pixels, datamodule, device=CPU, split=split)
    assert found == FeatureStd().score(datamodule.columns(split)["image"].flatten(1).float())
    assert len(asked) == 1
