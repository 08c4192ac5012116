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
    with pytest.raises(ValueError, match="nothing to optimise"):
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


def test_lars_equals_its_equation_over_two_steps():
    lr, momentum, eta, decay = 0.1, 0.9, 0.02, 0.01
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([1.0]))
    groups = [{"params": [weight], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = LARSOptimizer(groups, lr=lr, momentum=momentum, eta=eta, clip=False)
    w, b, v_w, v_b = weight.detach().clone(), bias.detach().clone(), 0.0, 0.0
    for g_w, g_b in ((torch.tensor([[1.0, 0.0]]), 2.0), (torch.tensor([[0.0, -2.0]]), -1.0)):
        weight.grad, bias.grad = g_w, torch.tensor([g_b])
        optimizer.step()
        ratio = eta * w.norm() / (g_w.norm() + decay * w.norm())
        v_w = momentum * v_w + ratio * (g_w + decay * w)
        v_b = momentum * v_b + g_b
        w, b = w - lr * v_w, b - lr * v_b
    torch.testing.assert_close(weight.detach(), w)
    torch.testing.assert_close(bias.detach(), b)


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
