"""Optimizers of timm by name."""

import copy

import pytest
import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from ssl_lab.testing import train
from ssl_lab.timm_optim import TimmOptim

REFUSED = ("bnb", "fused", "adahessian", "kron")
USABLE = [name for name in list_optimizers() if not name.startswith(REFUSED)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def take_steps(module, optimizer, schedule=None, *, num=3):
    x = torch.linspace(-1, 1, 24).reshape(6, 4)
    for _ in range(num):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def same(a, b):
    return all(map(torch.equal, a.parameters(), b.parameters()))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lion", {"betas": [0.8, 0.9]}),
        ("lamb", {}),
        ("adopt", {"eps": 1e-5}),
        ("muon", {}),
        ("nlars", {"momentum": 0.5}),
    ],
)
def test_three_steps_are_those_of_a_timm_optimizer_built_by_hand(name, options):
    ours, theirs = network(), network()
    settings = {"lr": 0.01, "weight_decay": 0.1}
    optim = TimmOptim(name=name, options=options, warmup_fraction=0.0, final_lr_fraction=1.0, **settings)
    take_steps(ours, *optim.build(ours, total_steps=3))
    take_steps(theirs, create_optimizer_v2(theirs, opt=name, **settings, **options))
    assert same(ours, theirs) and not same(ours, network())


@pytest.mark.parametrize("name", USABLE)
def test_every_other_optimizer_has_our_groups_and_schedule_and_resumes_exactly(name):
    optim = TimmOptim(name=name, lr=0.01, weight_decay=0.1, warmup_fraction=0.5)

    def build(module):
        return optim.build(module, total_steps=4, lr_scales={module[0].weight: 0.5})

    whole, stopped, resumed = network(), network(), network()
    built = build(whole)
    groups = built[0].param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.005, 0.1), (0.005, 0.0), (0.0025, 0.1)]
    take_steps(whole, *built, num=4)
    first, second = build(stopped), build(resumed)
    take_steps(stopped, *first, num=2)
    for part, saved in zip((resumed, *second), (stopped, *first), strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    take_steps(resumed, *second, num=2)
    assert same(resumed, whole) and not same(whole, network())


def test_a_method_trains_with_it():
    data = ArrayImages(num_samples=64)
    method = Tiny(TinyEncoder(data.spec), TimmOptim(name="lion"))
    train(method, data, num_steps=2)
    assert torch.isfinite(method.last_loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "loin"}, r"optim.name=loin: timm has no such optimizer. Did you mean lion"),
        ({"name": "lookahead_adam"}, "timm has no such optimizer"),
        ({"name": "adahessian"}, "needs second derivatives"),
        ({"name": "kronw"}, "random stream of its own"),
        ({"name": "bnblion"}, "optim.name=bnblion: .*bitsandbytes"),
        (
            {"name": "lion", "options": {"beta": 0.9}},
            r"optim.options.beta: lion has no such setting. Did you mean betas\?",
        ),
        ({"name": "lion", "options": {"lr": 1}}, r"optim.options.lr: it is set as optim.lr"),
        ({"name": "lion", "options": {"betas": [2, 0.9]}}, "Cannot build the optimizer lion: Invalid beta"),
        ({"name": "lion", "lr": -1.0}, "learning rate must be positive"),
    ],
)
def test_what_timm_does_not_take_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        TimmOptim(**settings)
