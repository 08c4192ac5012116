"""Codes whose disentanglement is known by construction."""

import math

import numpy as np
import pytest
import torch
from arrays import ArrayImages

from ssl_lab.data.image.shapes import Shapes
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.engine.judge import check_needs
from ssl_lab.evaluation.geometry.disentanglement import DCI, MIG, Coded, dci_of_importance, is_kind
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import AdamW

CPU = torch.device("cpu")
SHAPES = Shapes(image_size=8, num_train=2000, num_val=10, num_test=3000)


def score(protocol, code):
    return protocol.run(lambda batch: code(batch["factors"]), SHAPES, device=CPU)


def perfect(factors):
    """Each factor once, in another order, scaled, and two dimensions that are noise."""
    noise = torch.randn(len(factors), 2, generator=torch.Generator().manual_seed(len(factors)))
    return torch.cat([noise[:, :1], -3 * factors.flip(1) + 1, noise[:, 1:]], dim=1)


def mixed(factors):
    """The same information, in directions that no dimension has to itself."""
    low, high = factors.amin(0), factors.amax(0)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    return ((factors - low) / (high - low) - 0.5) @ rotation


def noise(factors):
    return torch.randn(len(factors), 6, generator=torch.Generator().manual_seed(len(factors)))


def test_mig_tells_perfect_mixed_and_random_codes_apart():
    found = {code.__name__: score(MIG(), code) for code in (perfect, mixed, noise)}
    assert found["perfect"]["mig/mig"] > 0.9
    assert found["mixed"]["mig/mig"] < 0.25
    assert found["noise"]["mig/mig"] < 0.03
    assert found["perfect"]["mig/mig"] == pytest.approx(
        np.mean([found["perfect"][f"mig/factor_{k}"] for k in range(6)])
    )


def test_mig_of_a_factor_known_twice_is_zero():
    twice = score(MIG(), lambda factors: torch.stack([factors[:, 1], -factors[:, 1]], dim=1))
    assert twice["mig/factor_1"] == pytest.approx(0, abs=1e-12)


def test_mig_equals_its_definition_on_kinds():
    """Entropies of counts, by hand: z_0 is the kind, z_1 tells one of four kinds from the rest."""
    kinds = np.arange(400) % 4
    coded = Coded(np.stack([kinds, kinds == 0], axis=1).astype(float), kinds[:, None].astype(float))
    known_by_second = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = (math.log(4) - known_by_second) / math.log(4)
    assert MIG().score(coded, coded)["mig/mig"] == pytest.approx(expected)


def mig_of_disentanglement_lib(codes, factors, num_bins=20):
    """Codes (N, K) in bins of np.histogram, factors (N, F) as they are, all from counts."""
    counted = np.stack([np.digitize(z, np.histogram(z, num_bins)[1][:-1]) for z in codes.T])
    gaps = []
    for values in factors.T:
        shared = sorted(_mutual_information(z, values) for z in counted)
        gaps.append((shared[-1] - shared[-2]) / _mutual_information(values, values))
    return np.mean(gaps)


def _mutual_information(a, b):
    joint = np.histogram2d(a, b, bins=[np.append(np.unique(x), np.inf) for x in (a, b)])[0] / len(a)
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    return np.sum(joint[joint > 0] * np.log(joint[joint > 0] / independent[joint > 0]))


def test_mig_equals_disentanglement_lib_at_the_cardinalities_of_dsprites():
    """Orientation and both positions have more values than there are bins; nobody may bin them for that."""
    draw = np.random.default_rng(0)
    factors = np.stack([draw.integers(size, size=4000) for size in (3, 6, 40, 32, 32)], axis=1).astype(float)
    noise = draw.normal(size=(4000, 5)) * factors.std(0) * 0.05
    coded = Coded(np.concatenate([factors + noise, draw.normal(size=(4000, 2))], axis=1), factors)
    reference = mig_of_disentanglement_lib(coded.codes, coded.factors)
    assert MIG().score(coded, coded)["mig/mig"] == pytest.approx(reference, abs=1e-12)
    binned = np.stack([np.digitize(v, np.histogram(v, 20)[1][:-1]) for v in factors.T], axis=1)
    assert mig_of_disentanglement_lib(coded.codes, binned) > reference + 0.05


def test_dci_tells_perfect_mixed_and_random_codes_apart():
    protocol = DCI(num_trees=5, num_samples=1500)
    found = {code.__name__: score(protocol, code) for code in (perfect, mixed, noise)}
    for name in ("dci/disentanglement", "dci/completeness", "dci/informativeness"):
        assert found["perfect"][name] > 0.95, name
    for name in ("dci/disentanglement", "dci/completeness"):
        assert found["mixed"][name] < 0.5, name
        assert found["noise"][name] < 0.1, name
    assert found["noise"]["dci/informativeness"] < 0.15 < 0.5 < found["mixed"]["dci/informativeness"]
    assert score(protocol, noise) == found["noise"]


def test_disentanglement_and_completeness_of_known_matrices():
    assert dci_of_importance(np.eye(4)) == (1.0, 1.0)
    assert dci_of_importance(np.ones((5, 3))) == pytest.approx((0.0, 0.0), abs=1e-12)
    two_for_each = np.repeat(np.eye(3), 2, axis=0)  # each dimension knows one factor, each factor is in two dimensions
    assert dci_of_importance(two_for_each) == pytest.approx((1.0, 1 - math.log(2) / math.log(6)))
    assert dci_of_importance(two_for_each.T) == pytest.approx((1 - math.log(2) / math.log(6), 1.0))
    unused = np.vstack([np.eye(2), np.zeros((3, 2))])
    assert dci_of_importance(unused) == (1.0, 1.0)


def test_kinds_are_whole_numbers_and_few():
    assert is_kind(np.array([0.0, 1.0, 2.0, 1.0]))
    assert not is_kind(np.array([0.0, 0.5])) and not is_kind(np.arange(50.0))


def test_data_without_factors_and_one_dimension_are_refused():
    data = ArrayImages()
    method = VAE(ConvNet(data.spec, widths=(8,)), AdamW())
    method.capabilities = lambda: {"encode": method.represent}
    with pytest.raises(ValueError, match="MIG needs factors, but ArrayImages has .* Choose data=shapes"):
        check_needs(method, [MIG()], data)
    with pytest.raises(ValueError, match="compares latent dimensions, but there is 1"):
        score(MIG(), lambda factors: factors[:, :1])
    for protocol, settings in ((MIG, {"num_bins": 1}), (DCI, {"num_trees": 0}), (DCI, {"num_samples": 3})):
        with pytest.raises(ValueError, match="at least"):
            protocol(**settings)
