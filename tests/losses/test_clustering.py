import math

import pytest
import torch

from ssl_lab.losses.clustering import sinkhorn_knopp, swapped_prediction


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cosines(batch=12, num_prototypes=5):
    return 2 * torch.rand(batch, num_prototypes, generator=seeded(), dtype=torch.float64) - 1


# Sinkhorn-Knopp


def slow_sinkhorn(scores, epsilon, num_iterations):
    """The published algorithm, one prototype and one sample at a time."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores.tolist()]
    batch, num_prototypes = len(q), len(q[0])
    total = sum(map(sum, q))
    q = [[x / total for x in row] for row in q]
    for _ in range(num_iterations):
        for k in range(num_prototypes):
            column = sum(q[b][k] for b in range(batch))
            for b in range(batch):
                q[b][k] /= column * num_prototypes
        for b in range(batch):
            row = sum(q[b])
            q[b] = [x / (row * batch) for x in q[b]]
    return torch.tensor(q, dtype=torch.float64) * batch


@pytest.mark.parametrize("num_iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_equals_the_slow_loop(epsilon, num_iterations):
    found = sinkhorn_knopp(cosines(), epsilon=epsilon, num_iterations=num_iterations)
    torch.testing.assert_close(found, slow_sinkhorn(cosines(), epsilon, num_iterations))


def test_sinkhorn_equals_lightly():
    lightly = pytest.importorskip("lightly.loss.swav_loss")
    expected = lightly.sinkhorn(cosines(), iterations=3, epsilon=0.05)
    torch.testing.assert_close(sinkhorn_knopp(cosines(), epsilon=0.05, num_iterations=3), expected)


def test_codes_sum_to_one_and_use_all_prototypes_equally_often():
    codes = sinkhorn_knopp(cosines(), epsilon=0.2, num_iterations=200)
    assert codes.min() >= 0
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 12 / 5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_codes_solve_the_regularised_transport_problem():
    """At the fixed point Q = diag(u) exp(S / epsilon) diag(v): log Q - S / epsilon is a sum of rows and columns."""
    dual = sinkhorn_knopp(cosines(), epsilon=0.2, num_iterations=200).log() - cosines() / 0.2
    mixed = dual[1:, 1:] - dual[1:, :1] - dual[:1, 1:] + dual[:1, :1]
    torch.testing.assert_close(mixed, torch.zeros_like(mixed), atol=1e-9, rtol=0)


def test_a_favourite_prototype_is_shared_out():
    scores = cosines()
    scores[:, 0] += 10
    shifted = sinkhorn_knopp(scores, epsilon=0.05, num_iterations=3)
    torch.testing.assert_close(shifted, sinkhorn_knopp(cosines(), epsilon=0.05, num_iterations=3))


def test_codes_do_not_depend_on_the_order_of_the_batch():
    order = torch.randperm(12, generator=seeded(1))
    codes = sinkhorn_knopp(cosines(), epsilon=0.05, num_iterations=3)
    torch.testing.assert_close(sinkhorn_knopp(cosines()[order], epsilon=0.05, num_iterations=3), codes[order])


def test_sinkhorn_is_finite_where_exponentials_overflow_and_is_fp32_under_autocast():
    scores = cosines().float()
    codes = sinkhorn_knopp(scores, epsilon=1e-3, num_iterations=3)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(12))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sinkhorn_knopp(scores.bfloat16(), epsilon=0.05, num_iterations=3)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, sinkhorn_knopp(scores.bfloat16().float(), epsilon=0.05, num_iterations=3))


def test_codes_carry_no_gradient():
    assert not sinkhorn_knopp(cosines().requires_grad_(), epsilon=0.05, num_iterations=3).requires_grad


def test_sinkhorn_refuses_bad_input():
    with pytest.raises(ValueError, match="epsilon > 0"):
        sinkhorn_knopp(cosines(), epsilon=0.0, num_iterations=3)
    with pytest.raises(ValueError, match="an iteration or more"):
        sinkhorn_knopp(cosines(), epsilon=0.05, num_iterations=0)


# Swapped prediction


def assignments(num_views=4, batch=3, num_prototypes=5):
    targets = torch.rand(2, batch, num_prototypes, generator=seeded(), dtype=torch.float64).softmax(2)
    return targets, torch.randn(num_views, batch, num_prototypes, generator=seeded(1), dtype=torch.float64)


def slow_swapped_prediction(targets, logits, temperature):
    """Equation 3 of DINO, one pair of views and one sample at a time."""
    terms = []
    for g in range(2):
        for v in range(len(logits)):
            if v != g:
                for q, s in zip(targets[g], logits[v], strict=True):
                    terms.append(-(q * (s / temperature).softmax(0).log()).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("num_views", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_swapped_prediction_equals_the_slow_loop(num_views, temperature):
    targets, logits = assignments(num_views)
    expected = slow_swapped_prediction(targets, logits, temperature)
    torch.testing.assert_close(swapped_prediction(targets, logits, temperature=temperature), expected)


def test_swapped_prediction_equals_lightly():
    lightly = pytest.importorskip("lightly.loss")
    targets, logits = assignments()
    dino = lightly.DINOLoss(output_dim=5, teacher_temp=1.0, student_temp=0.1)
    expected = dino(list(targets.log()), list(logits))  # the softmax of a logarithm is itself; the centre is still 0
    torch.testing.assert_close(swapped_prediction(targets, logits, temperature=0.1), expected)


def test_equal_logits_cost_the_logarithm_of_the_number_of_prototypes():
    targets, logits = assignments()
    loss = swapped_prediction(targets, torch.zeros_like(logits), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(5))


def test_a_view_does_not_predict_itself():
    """Confident views that agree with themselves alone pay for it."""
    targets = torch.eye(2, dtype=torch.float64).unsqueeze(1)  # the two views have different assignments
    own = 50 * targets
    assert swapped_prediction(targets, own, temperature=1.0) > 40
    assert swapped_prediction(targets, own.flip(0), temperature=1.0) < 1e-9


def test_swapped_prediction_is_invariant_to_swap_order_and_shift():
    targets, logits = assignments()
    loss = swapped_prediction(targets, logits, temperature=0.1)
    rows, views = torch.tensor([2, 0, 1]), torch.tensor([1, 0, 3, 2])
    changed = [(targets[:, rows], logits[:, rows]), (targets.flip(0), logits[views]), (targets, logits + 7)]
    for pair in changed:
        torch.testing.assert_close(swapped_prediction(*pair, temperature=0.1), loss)


def test_gradient():
    targets, logits = (x.requires_grad_() for x in assignments())
    assert torch.autograd.gradcheck(lambda q, s: swapped_prediction(q, s, temperature=0.5), (targets, logits))


def test_extreme_logits_stay_finite_and_are_fp32_under_autocast():
    targets, logits = (x.float() for x in assignments())
    assert torch.isfinite(swapped_prediction(targets, 1e20 * logits, temperature=0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = swapped_prediction(targets, logits, temperature=0.1)
    assert torch.equal(inside, swapped_prediction(targets, logits, temperature=0.1))


def test_swapped_prediction_refuses_bad_input():
    targets, logits = assignments()
    for pair in [(targets[:1], logits), (targets, logits[:1]), (targets, logits[:, :2]), (targets[0], logits)]:
        with pytest.raises(ValueError, match="Swapped prediction needs"):
            swapped_prediction(*pair, temperature=0.1)
    with pytest.raises(ValueError, match="positive"):
        swapped_prediction(targets, logits, temperature=0.0)
