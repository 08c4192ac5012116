import math

import pytest
import torch
from torch import nn

from ssl_lab.optim import DECAYS, LARS, SGD, AdamW, LARSOptimizer, decay_groups, warmup_decay


def test_biases_and_norms_are_not_decayed():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    decayed, free = decay_groups(module, weight_decay=0.1)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert all(p.ndim == 1 for p in free["params"])
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(module.parameters()))


def test_frozen_parameters_are_left_out():
    module = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        decay_groups(module, weight_decay=0.1)


def test_schedule_rises_linearly_then_follows_a_cosine():
    factor = warmup_decay(100, warmup_fraction=0.1, final_fraction=0.2, decay=DECAYS["cosine"])
    assert [factor(k) for k in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == 1
    assert factor(55) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert factor(100) == factor(500) == pytest.approx(0.2)


def test_or_a_straight_line():
    factor = warmup_decay(100, warmup_fraction=0.2, final_fraction=0.1, decay=DECAYS["linear"])
    assert [factor(k) for k in (9, 20, 60, 100, 500)] == pytest.approx([0.5, 1.0, 0.55, 0.1, 0.1])
    _, schedule = SGD(lr=2.0, warmup_fraction=0.0, decay="linear").build(nn.Linear(2, 2), total_steps=4)
    assert [schedule.lr_lambdas[0](k) for k in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_schedule_counts_optimizer_steps():
    optimizer, schedule = SGD(lr=2.0, warmup_fraction=0.5).build(nn.Linear(2, 2), total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.0])


def test_a_part_may_keep_its_rate():
    trunk, predictor = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer, schedule = SGD(lr=2.0, warmup_fraction=0.5).build(trunk, total_steps=4, constant=predictor)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates == [pytest.approx([rate, rate, 2.0, 2.0]) for rate in (1.0, 2.0, 2.0, 1.0)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 0.0, 1e-4, 0.0]
    updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert updated == {id(p) for p in nn.ModuleList([trunk, predictor]).parameters()}


def published_lars(module, grads, *, lr, momentum, eta, decay, trust_norm, clip):
    """LARS tensor by tensor, as moco-v3 (joint) and solo-learn (sum) write it: weights after each list of gradients."""
    weights = [p.detach().clone().double() for p in module.parameters()]
    velocities = [torch.zeros_like(w) for w in weights]
    for step in grads:
        for w, v, g in zip(weights, velocities, [g.double() for g in step], strict=True):
            update = g
            if w.ndim > 1:  # neither a bias nor a parameter of normalisation
                update = g + decay * w
                norm = update.norm() if trust_norm == "joint" else g.norm() + decay * w.norm()
                ratio = float(eta * w.norm() / norm) if w.norm() > 0 and norm > 0 else 1.0
                update = (min(ratio / lr, 1.0) if clip else ratio) * update
            v.mul_(momentum).add_(update)
            w.sub_(lr * v)
    return weights


@pytest.mark.parametrize("decay", [0.0, 1e-2])
@pytest.mark.parametrize("trust_norm", ["sum", "joint"])
@pytest.mark.parametrize("clip", [False, True])
def test_lars_equals_the_published_algorithm_with_and_without_decay(decay, trust_norm, clip):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))
    nn.init.zeros_(module[4].weight)
    grads = [[torch.randn_like(p) * 10.0 ** (1 - k) for p in module.parameters()] for k in range(4)]
    settings = {"lr": 0.3, "momentum": 0.9, "eta": 0.02, "trust_norm": trust_norm, "clip": clip}
    expected = published_lars(module, grads, decay=decay, **settings)
    recipe = LARS(weight_decay=decay, warmup_fraction=0.0, final_lr_fraction=1.0, **settings)
    optimizer, _ = recipe.build(module, total_steps=4)
    for step in grads:
        for p, g in zip(module.parameters(), step, strict=True):
            p.grad = g
        optimizer.step()
    for p, w in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_lars_continues_from_a_checkpoint_without_the_flag():
    module = nn.Linear(3, 2)
    optimizer, _ = LARS(weight_decay=0.0).build(module, total_steps=4)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["adapt"], group["trust_norm"]
    optimizer.load_state_dict(state)
    assert [group["adapt"] for group in optimizer.param_groups] == [True, False]


def test_clipped_lars_never_enlarges_a_step():
    weight = nn.Parameter(torch.full((2, 2), 100.0))
    optimizer = LARSOptimizer([{"params": [weight], "weight_decay": 1e-9}], lr=0.1, momentum=0.0, eta=1.0, clip=True)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 99.9))


@pytest.mark.parametrize("recipe", [AdamW(), SGD(), LARS()])
def test_every_optimizer_lowers_a_loss(recipe):
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    x = torch.randn(32, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    optimizer, schedule = recipe.build(module, total_steps=50)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (module(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_refuses_senseless_values():
    with pytest.raises(ValueError, match="positive"):
        AdamW(lr=0.0)
    with pytest.raises(ValueError, match="positive"):
        LARS(lr=math.nan)
    with pytest.raises(ValueError, match="at least 0, found -0.1"):
        SGD(weight_decay=-0.1)
    with pytest.raises(ValueError, match="Momentum lies in"):
        LARS(momentum=1.0)
    with pytest.raises(ValueError, match="two betas"):
        AdamW(betas=(0.9, 1.5))
    with pytest.raises(ValueError, match="no norm 'l1'"):
        LARS(trust_norm="l1")
    with pytest.raises(ValueError, match="warmup_fraction"):
        AdamW(warmup_fraction=1.5)
    with pytest.raises(ValueError, match="no decay 'square'"):
        AdamW(decay="square")


def test_sgd_steps_while_a_part_has_no_gradient_yet_and_is_torchs_otherwise():
    mine, torchs = (nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(2)]) for _ in range(2))
    optimizer, _ = SGD(lr=0.1).build(mine, total_steps=10)
    reference = torch.optim.SGD(torchs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0, foreach=False)
    for group in optimizer.param_groups:
        group["weight_decay"], group["lr"] = 0.0, 0.1
    for step in range(4):
        for parameters in (mine, torchs):
            for number, parameter in enumerate(parameters):
                parameter.grad = torch.full((3,), 1.0 + step) if step > 0 or number == 0 else None
        optimizer.step()
        reference.step()
    for ours, theirs in zip(mine, torchs, strict=True):
        assert torch.allclose(ours, theirs)
