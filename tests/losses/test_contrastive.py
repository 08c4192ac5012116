import math

import pytest
import torch

from ssl_lab.losses.contrastive import nt_xent, queue_info_nce


def slow_nt_xent(z_a, z_b, temperature):
    """Equation 1 of the paper, one anchor at a time."""
    z = torch.cat([z_a, z_b])
    n = len(z_a)
    losses = []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        similarities = [torch.cosine_similarity(z[i], z[k], dim=0) / temperature for k in range(2 * n)]
        denominator = sum(torch.exp(similarities[k]) for k in range(2 * n) if k != i)
        losses.append(-torch.log(torch.exp(similarities[positive]) / denominator))
    return torch.stack(losses).mean()


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_equals_the_slow_loop(views, temperature):
    torch.testing.assert_close(nt_xent(*views, temperature=temperature), slow_nt_xent(*views, temperature))


def test_orthogonal_pairs_have_a_closed_form():
    z = torch.eye(4)
    expected = math.log(1 + 6 * math.exp(-1 / 0.5))  # one positive at s=1, six negatives at s=0
    assert nt_xent(z, z, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)


def test_is_invariant_to_swap_permutation_and_scale(views):
    z_a, z_b = views
    loss = nt_xent(z_a, z_b, temperature=0.2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(nt_xent(z_b, z_a, temperature=0.2), loss)
    torch.testing.assert_close(nt_xent(z_a[order], z_b[order], temperature=0.2), loss)
    torch.testing.assert_close(nt_xent(3 * z_a, z_b / 7, temperature=0.2), loss)


def test_gradient(views):
    z_a, z_b = (z.requires_grad_() for z in views)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=0.5), (z_a, z_b))


def test_is_computed_in_fp32_under_autocast(views):
    z_a, z_b = (z.float() for z in views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z_a, z_b, temperature=0.01)
    torch.testing.assert_close(loss, nt_xent(z_a, z_b, temperature=0.01), rtol=0, atol=0)


def test_extreme_projections_stay_finite():
    z = torch.full((4, 3), 1e20)
    assert torch.isfinite(nt_xent(z, torch.zeros(4, 3), temperature=0.01))


def test_refuses_bad_input(views):
    with pytest.raises(ValueError, match="equal shapes"):
        nt_xent(views[0], views[1][:3], temperature=0.5)
    with pytest.raises(ValueError, match="positive"):
        nt_xent(*views, temperature=0.0)


def slow_queue_info_nce(queries, keys, queue, temperature):
    """Equation 1 of MoCo, one query at a time."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        positive = torch.exp(torch.cosine_similarity(q, k, dim=0) / temperature)
        negatives = sum(torch.exp(torch.cosine_similarity(q, n, dim=0) / temperature) for n in queue)
        losses.append(-torch.log(positive / (positive + negatives)))
    return torch.stack(losses).mean()


@pytest.fixture
def queue():
    return torch.randn(9, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 2.0])
def test_queue_info_nce_equals_the_slow_loop(views, queue, temperature):
    found = queue_info_nce(*views, queue, temperature=temperature)
    torch.testing.assert_close(found, slow_queue_info_nce(*views, queue, temperature))


def test_queue_info_nce_equals_lightlys(views, queue):
    lightly = pytest.importorskip("lightly.loss")
    theirs = lightly.NTXentLoss(temperature=0.2, memory_bank_size=tuple(queue.shape)).double()
    theirs.memory_bank.bank = torch.nn.functional.normalize(queue, dim=1)
    torch.testing.assert_close(queue_info_nce(*views, queue, temperature=0.2), theirs(*views))


def test_queue_info_nce_of_unrelated_keys_is_the_logarithm_of_their_number():
    x = torch.eye(12)
    found = queue_info_nce(x[:2], x[2:4], x[4:], temperature=0.05)
    assert found.item() == pytest.approx(math.log(1 + 8), rel=1e-6)


def test_queue_info_nce_invariances(views, queue):
    queries, keys = views
    loss = queue_info_nce(queries, keys, queue, temperature=0.2)
    torch.testing.assert_close(queue_info_nce(queries.flip(0), keys.flip(0), queue, temperature=0.2), loss)
    torch.testing.assert_close(queue_info_nce(3 * queries, keys / 7, 2 * queue.flip(0), temperature=0.2), loss)
    parts = [queue_info_nce(q, k, queue, temperature=0.2) for q, k in zip(queries.chunk(3), keys.chunk(3), strict=True)]
    torch.testing.assert_close(sum(parts) / 3, loss)


def test_gradient_of_queue_info_nce(views, queue):
    inputs = [x.requires_grad_() for x in (*views, queue)]
    assert torch.autograd.gradcheck(lambda q, k, n: queue_info_nce(q, k, n, temperature=0.5), inputs)


def test_queue_info_nce_is_computed_in_fp32_under_autocast_and_stays_finite(views, queue):
    q, k, n = views[0].bfloat16(), views[1].bfloat16(), queue.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = queue_info_nce(q, k, n, temperature=0.01)
    torch.testing.assert_close(loss, queue_info_nce(q.float(), k.float(), n, temperature=0.01), rtol=0, atol=0)
    huge, nothing = torch.full((4, 3), 1e20), torch.zeros(4, 3)
    assert torch.isfinite(queue_info_nce(huge, nothing, huge, temperature=0.01))


def test_queue_info_nce_refuses_bad_input(views, queue):
    with pytest.raises(ValueError, match="need shapes"):
        queue_info_nce(*views, queue[:, :3], temperature=0.5)
    with pytest.raises(ValueError, match="need shapes"):
        queue_info_nce(views[0], views[1][:3], queue, temperature=0.5)
    with pytest.raises(ValueError, match="positive"):
        queue_info_nce(*views, queue, temperature=0.0)
