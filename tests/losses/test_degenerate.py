"""Every loss on degenerate input: refused, not a number, or anything but the best value.

All public functions of ssl_lab/losses are found here by themselves; one without a case fails.
"""

import importlib
import inspect
import math
import pkgutil
import zlib

import pytest
import torch

from ssl_lab import losses
from ssl_lab.losses import adversarial, clustering, contrastive, redundancy, regression, tokens, variational

# Where the formula itself gives collapse its best value, another sign of it is watched.
SHOWN_ELSEWHERE = {
    ("negative_cosine", "constants"): "equal views agree; the spread that is logged beside it is 0",
    ("normalised_mse", "constants"): "equal views agree; the spread that is logged beside it is 0",
    ("gaussian_kl", "zeros"): "mean 0 and log variance 0 are the prior itself",
    ("free_bits", "zeros"): "no information costs nothing",
}


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(repr(shape).encode())))


def views(batch, dim):
    return {"z_a": randn(batch, dim), "z_b": randn(batch, dim) + 1}


def adversarial_case(loss):
    def run(real, fake):
        return loss().discriminator(real, fake) + loss().generator(fake)

    return run, lambda b, d: {"real": randn(b), "fake": randn(b, 1)[:, 0]}, -math.inf if loss in UNBOUNDED else 0.0


UNBOUNDED = (adversarial.wasserstein, adversarial.hinge)


def critic(weight):
    return lambda x: 0.5 * (x.flatten(1) @ weight) + (x.flatten(1) @ weight).sin()


# name: (function of tensors whose result is the lower the better, tensors of a batch and a width, its best value)
CASES = {
    "nt_xent": (lambda **t: contrastive.nt_xent(**t, temperature=0.5), views, 0.0),
    "in_batch_info_nce": (
        lambda z_a, z_b: contrastive.in_batch_info_nce(z_a, z_b, temperature=0.5),
        views,
        0.0,
    ),
    "queue_info_nce": (
        lambda **t: contrastive.queue_info_nce(**t, temperature=0.5),
        lambda b, d: {"queries": randn(b, d), "keys": randn(b, d) + 1, "queue": randn(5, d)},
        0.0,
    ),
    "supcon": (
        lambda **t: contrastive.supcon(**t, labels=torch.arange(len(t["z_a"])) % 2, temperature=0.5),
        views,
        0.0,
    ),
    "clip_loss": (
        lambda z_a, z_b: contrastive.clip_loss(z_a, z_b, logit_scale=torch.tensor(3.0)),
        views,
        0.0,
    ),
    "barlow_twins": (lambda **t: sum(redundancy.barlow_twins(**t)), views, 0.0),
    "vicreg": (lambda **t: sum(redundancy.vicreg(**t)), views, 0.0),
    "negative_cosine": (regression.negative_cosine, lambda b, d: {"p": randn(b, d), "z": randn(b, d) + 1}, -1.0),
    "normalised_mse": (regression.normalised_mse, lambda b, d: {"p": randn(b, d), "z": randn(b, d) + 1}, 0.0),
    "spread": (lambda z: -regression.spread(z), lambda b, d: {"z": randn(b, d)}, -1.0),
    "sinkhorn_knopp": (
        lambda scores: (
            torch.special.entr(clustering.sinkhorn_knopp(scores, epsilon=0.5, num_iterations=3)).sum(1).mean()
        ),
        lambda b, d: {"scores": randn(b, d)},
        0.0,
    ),
    "swapped_prediction": (
        lambda targets, logits: clustering.swapped_prediction(targets.softmax(2), logits, temperature=0.1),
        lambda b, d: {"targets": randn(2, b, d), "logits": randn(3, b, d)},
        0.0,
    ),
    "token_cross_entropies": (
        lambda logits: tokens.token_cross_entropies(logits, torch.zeros(len(logits), dtype=torch.int64)).mean(),
        lambda b, d: {"logits": randn(b, d)},
        0.0,
    ),
    "token_cross_entropy_sum": (
        lambda logits: tokens.token_cross_entropy_sum(logits, torch.zeros(len(logits), dtype=torch.int64)),
        lambda b, d: {"logits": randn(b, d)},
        0.0,
    ),
    "non_saturating": adversarial_case(adversarial.non_saturating),
    "hinge": adversarial_case(adversarial.hinge),
    "wasserstein": adversarial_case(adversarial.wasserstein),
    "least_squares": adversarial_case(adversarial.least_squares),
    "gradient_penalty": (
        lambda real, fake: adversarial.gradient_penalty(
            critic(torch.ones(real[0].numel())), real, fake, torch.full((len(real),), 0.5)
        ),
        lambda b, d: {"real": randn(b, 1, 1, d), "fake": randn(b, 1, 1, d) + 1},
        0.0,
    ),
    "r1": (
        lambda real: adversarial.r1(critic(torch.ones(real[0].numel())), real),
        lambda b, d: {"real": randn(b, 1, 1, d)},
        0.0,
    ),
    "bernoulli_nll": (
        lambda logits, x: variational.bernoulli_nll(logits, x).mean(),
        lambda b, d: {"logits": randn(b, d), "x": randn(b, d).sigmoid()},
        0.0,
    ),
    "gaussian_nll": (
        lambda mean, x: variational.gaussian_nll(mean, torch.tensor(-1.0), x).mean(),
        lambda b, d: {"mean": randn(b, d), "x": randn(b, d) + 1},
        -math.inf,
    ),
    "gaussian_level_nll": (
        lambda mean, x: variational.gaussian_level_nll(mean, torch.tensor(-1.0), x).mean(),
        lambda b, d: {"mean": randn(b, d).sigmoid(), "x": (randn(b, d).sigmoid() * 255).round() / 255},
        0.0,
    ),
    "logistic_nll": (
        lambda mean, x: variational.logistic_nll(mean, torch.tensor(-1.0), x).mean(),
        lambda b, d: {"mean": randn(b, d).sigmoid(), "x": (randn(b, d).sigmoid() * 255).round() / 255},
        0.0,
    ),
    "gaussian_log_density": (
        lambda **t: -variational.gaussian_log_density(**t).mean(),
        lambda b, d: {"z": randn(b, d), "mean": randn(b, d) + 1, "log_var": randn(b, 1) + 0 * randn(b, d)},
        -math.inf,
    ),
    "gaussian_kl": (
        lambda **t: variational.gaussian_kl(**t).sum(),
        lambda b, d: {"mean": randn(b, d), "log_var": randn(b, d) + 1},
        0.0,
    ),
    "free_bits": (lambda kl: variational.free_bits(kl, 0.0), lambda b, d: {"kl": randn(b, d).square()}, 0.0),
    "importance_bound": (
        lambda log_weights: -variational.importance_bound(log_weights).mean(),
        lambda b, d: {"log_weights": randn(b, d)},
        -math.inf,
    ),
    "decomposed_kl": (
        lambda **t: sum(variational.decomposed_kl(**t, num_samples=100)),
        lambda b, d: {"z": randn(b, d), "mean": randn(b, d) + 1, "log_var": randn(b, d)},
        -math.inf,
    ),
}
NEEDS_TWO_SAMPLES = {
    "nt_xent", "in_batch_info_nce", "supcon", "clip_loss", "barlow_twins", "vicreg", "sinkhorn_knopp", "decomposed_kl"
}  # fmt: skip
NEEDS_TWO_CLASSES = {"sinkhorn_knopp", "swapped_prediction", "token_cross_entropies", "token_cross_entropy_sum"}


def public_functions():
    for module in pkgutil.iter_modules(losses.__path__, losses.__name__ + "."):
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            if inspect.isfunction(value) and value.__module__ == module.name and not name.startswith("_"):
                yield name


def test_every_loss_has_a_case():
    assert set(public_functions()) == set(CASES)


def value_of(name, tensors):
    return float(CASES[name][0](**tensors).detach())


@pytest.mark.parametrize("scenario", ["zeros", "constants"])
@pytest.mark.parametrize("name", CASES)
def test_without_information_no_loss_is_the_best(name, scenario):
    _, make, best = CASES[name]
    fill = {"zeros": torch.zeros_like, "constants": torch.ones_like}[scenario]
    value = value_of(name, {key: fill(tensor) for key, tensor in make(4, 3).items()})
    if (name, scenario) in SHOWN_ELSEWHERE:
        return
    assert math.isnan(value) or value > best + 1e-3


@pytest.mark.parametrize("name", CASES)
def test_one_sample_is_refused_where_samples_are_compared(name):
    tensors = CASES[name][1](1, 3)
    if name in NEEDS_TWO_SAMPLES:
        with pytest.raises(ValueError, match=r"[Tt]wo|2"):
            value_of(name, tensors)
        return
    with pytest.warns(UserWarning, match="degrees of freedom") if name == "spread" else nothing():
        value = value_of(name, tensors)
    assert math.isnan(value) or value > CASES[name][2] + 1e-3


class nothing:
    """A context that expects nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@pytest.mark.parametrize("name", CASES)
def test_one_dimension_or_class_is_refused_or_has_a_value(name):
    tensors = CASES[name][1](4, 1)
    if name in NEEDS_TWO_CLASSES:
        with pytest.raises(ValueError, match="2|two"):
            value_of(name, tensors)
    else:
        assert not math.isinf(value_of(name, tensors))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", CASES)
def test_values_that_are_not_finite_never_make_a_loss_better(name, broken):
    """One entry of each argument in turn; the result is NaN, infinitely bad, or not the best there is."""
    make = CASES[name][1]
    for key in make(4, 3):
        tensors = make(4, 3)
        tensors[key].view(-1)[1] = broken
        try:
            value = value_of(name, tensors)
        except ValueError:
            continue
        if math.isnan(broken):
            assert math.isnan(value), key
        else:
            assert math.isnan(value) or value == math.inf or value > CASES[name][2] + 1e-6, key


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "loss", [contrastive.nt_xent, contrastive.in_batch_info_nce, contrastive.queue_info_nce, contrastive.supcon]
)
def test_a_temperature_is_positive_and_finite(loss, temperature):
    more = {contrastive.queue_info_nce: [randn(5, 3)], contrastive.supcon: [torch.arange(4)]}.get(loss, [])
    with pytest.raises(ValueError, match="positive and finite"):
        loss(randn(4, 3), randn(4, 3), *more, temperature=temperature)


@pytest.mark.parametrize("loss", [redundancy.barlow_twins, redundancy.vicreg])
def test_projections_without_a_dimension_are_refused(loss):
    with pytest.raises(ValueError, match="D >= 1"):
        loss(torch.zeros(4, 0), torch.zeros(4, 0))
