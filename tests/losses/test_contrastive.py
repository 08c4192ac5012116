import math

import pytest
import torch

from ssl_lab.losses.contrastive import clip_loss, in_batch_info_nce, nt_xent, queue_info_nce, supcon


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


def slow_supcon(z_a, z_b, labels, temperature):
    """Equation 2 of the paper, one anchor and one positive at a time."""
    z, classes = torch.cat([z_a, z_b]), labels.tolist() * 2
    losses = []
    for i in range(len(z)):
        exps = {k: torch.exp(torch.cosine_similarity(z[i], z[k], dim=0) / temperature) for k in range(len(z)) if k != i}
        positives = [k for k in exps if classes[k] == classes[i]]
        losses.append(-sum(torch.log(exps[p] / sum(exps.values())) for p in positives) / len(positives))
    return torch.stack(losses).mean()


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 0, 2, 0, 1])


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_supcon_equals_the_slow_loop(views, labels, temperature):
    found = supcon(*views, labels, temperature=temperature)
    torch.testing.assert_close(found, slow_supcon(*views, labels, temperature))


def test_supcon_of_single_images_is_nt_xent(views):
    for labels in (torch.arange(6), torch.full((6,), -1)):
        found = supcon(*views, labels, temperature=0.2)
        torch.testing.assert_close(found, nt_xent(*views, temperature=0.2))


def test_supcon_takes_images_of_unknown_class_one_by_one(views):
    found = supcon(*views, torch.tensor([0, -1, 0, -1, 1, 1]), temperature=0.2)
    torch.testing.assert_close(found, supcon(*views, torch.tensor([0, 2, 0, 3, 1, 1]), temperature=0.2))


def test_supcon_of_perfect_classes_has_a_closed_form():
    z = torch.eye(2).repeat(3, 1)  # two classes of three images: five positives at s=1, six negatives at s=0
    expected = math.log(5 + 6 * math.exp(-1 / 0.5))
    assert supcon(z, z, torch.tensor([0, 1] * 3), temperature=0.5).item() == pytest.approx(expected, rel=1e-6)


def test_supcon_invariances(views, labels):
    z_a, z_b = views
    loss = supcon(z_a, z_b, labels, temperature=0.2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(supcon(z_b, z_a, labels, temperature=0.2), loss)
    torch.testing.assert_close(supcon(z_a[order], z_b[order], labels[order], temperature=0.2), loss)
    torch.testing.assert_close(supcon(3 * z_a, z_b / 7, labels, temperature=0.2), loss)
    torch.testing.assert_close(supcon(z_a, z_b, 7 - labels, temperature=0.2), loss)


def test_gradient_of_supcon(views, labels):
    inputs = [z.requires_grad_() for z in views]
    assert torch.autograd.gradcheck(lambda a, b: supcon(a, b, labels, temperature=0.5), inputs)


def test_supcon_is_computed_in_fp32_under_autocast_and_stays_finite(views, labels):
    z_a, z_b = (z.float() for z in views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supcon(z_a, z_b, labels, temperature=0.01)
    torch.testing.assert_close(loss, supcon(z_a, z_b, labels, temperature=0.01), rtol=0, atol=0)
    z = torch.full((6, 3), 1e20, requires_grad=True)
    loss = supcon(z, torch.zeros(6, 3), labels, temperature=0.01)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_supcon_refuses_bad_input(views, labels):
    with pytest.raises(ValueError, match="need shapes"):
        supcon(*views, labels[:3], temperature=0.5)
    with pytest.raises(ValueError, match="positive"):
        supcon(*views, labels, temperature=0.0)


def slow_in_batch_info_nce(anchors, candidates, temperature):
    """Equations 4 and 5 of SimCSE, one anchor at a time."""
    losses = []
    for i, anchor in enumerate(anchors):
        similarities = [torch.cosine_similarity(anchor, candidate, dim=0) for candidate in candidates]
        exps = torch.stack(similarities).div(temperature).exp()
        losses.append(-torch.log(exps[i] / exps.sum()))
    return torch.stack(losses).mean()


@pytest.fixture
def negatives():
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_in_batch_info_nce_equals_the_slow_loop(views, negatives, temperature):
    anchors, positives = views
    for candidates in (positives, torch.cat([positives, negatives])):
        found = in_batch_info_nce(anchors, candidates, temperature=temperature)
        torch.testing.assert_close(found, slow_in_batch_info_nce(anchors, candidates, temperature))


def test_in_batch_info_nce_of_unrelated_candidates_is_the_logarithm_of_their_number():
    anchors, candidates = torch.eye(12)[:4], torch.eye(12)[4:]
    found = in_batch_info_nce(anchors, candidates, temperature=0.05)
    assert found.item() == pytest.approx(math.log(8), rel=1e-6)


def test_in_batch_info_nce_invariances(views, negatives):
    anchors, positives = views
    loss = in_batch_info_nce(anchors, torch.cat([positives, negatives]), temperature=0.2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    shuffled = torch.cat([positives[order], negatives.flip(0)])
    torch.testing.assert_close(in_batch_info_nce(anchors[order], shuffled, temperature=0.2), loss)
    scaled = torch.cat([positives / 7, 2 * negatives])
    torch.testing.assert_close(in_batch_info_nce(3 * anchors, scaled, temperature=0.2), loss)
    assert in_batch_info_nce(anchors, positives, temperature=0.2) < loss, "more negatives are harder"


def test_gradient_of_in_batch_info_nce(views, negatives):
    inputs = [x.requires_grad_() for x in (*views, negatives)]
    assert torch.autograd.gradcheck(
        lambda a, b, c: in_batch_info_nce(a, torch.cat([b, c]), temperature=0.5), tuple(inputs)
    )


def test_in_batch_info_nce_is_computed_in_fp32_under_autocast_and_stays_finite(views):
    z_a, z_b = (z.float() for z in views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = in_batch_info_nce(z_a, z_b, temperature=0.01)
    torch.testing.assert_close(loss, in_batch_info_nce(z_a, z_b, temperature=0.01), rtol=0, atol=0)
    assert torch.isfinite(in_batch_info_nce(torch.full((4, 3), 1e20), torch.zeros(4, 3), temperature=0.01))


def test_in_batch_info_nce_refuses_bad_input(views):
    with pytest.raises(ValueError, match="need shapes"):
        in_batch_info_nce(views[0], views[1][:, :3], temperature=0.5)
    with pytest.raises(ValueError, match="needs a candidate, found 3 for 6"):
        in_batch_info_nce(views[0], views[1][:3], temperature=0.5)
    with pytest.raises(ValueError, match="positive"):
        in_batch_info_nce(*views, temperature=0.0)


def slow_clip_loss(z_image, z_text, scale):
    """Figure 3 of CLIP, one pair at a time."""
    losses = []
    for i in range(len(z_image)):
        to_texts = torch.stack([torch.cosine_similarity(z_image[i], z, dim=0) for z in z_text]).mul(scale).exp()
        to_images = torch.stack([torch.cosine_similarity(z, z_text[i], dim=0) for z in z_image]).mul(scale).exp()
        losses += [-torch.log(to_texts[i] / to_texts.sum()), -torch.log(to_images[i] / to_images.sum())]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_clip_loss_equals_the_slow_loop(views, scale):
    found = clip_loss(*views, logit_scale=torch.tensor(scale, dtype=torch.float64))
    torch.testing.assert_close(found, slow_clip_loss(*views, scale))


def test_clip_loss_is_the_mean_of_both_directions_of_info_nce(views):
    both = [in_batch_info_nce(*pair, temperature=0.2) for pair in (views, views[::-1])]
    torch.testing.assert_close(clip_loss(*views, logit_scale=torch.tensor(5.0).double()), sum(both) / 2)


def test_clip_loss_invariances_and_closed_form(views):
    z_image, z_text = views
    scale = torch.tensor(3.0).double()
    loss = clip_loss(z_image, z_text, logit_scale=scale)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(clip_loss(z_image[order], z_text[order], logit_scale=scale), loss)
    torch.testing.assert_close(clip_loss(3 * z_text, z_image / 7, logit_scale=scale), loss)
    expected = math.log(1 + 3 * math.exp(-2.0))
    assert clip_loss(torch.eye(4), torch.eye(4), logit_scale=torch.tensor(2.0)).item() == pytest.approx(expected)


def test_gradient_of_clip_loss_reaches_the_scale(views):
    inputs = (*(z.requires_grad_() for z in views), torch.tensor(2.0, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(lambda a, b, scale: clip_loss(a, b, logit_scale=scale), inputs)


def test_clip_loss_is_computed_in_fp32_under_autocast_and_stays_finite(views):
    z_image, z_text = (z.float() for z in views)
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = clip_loss(z_image, z_text, logit_scale=scale)
    torch.testing.assert_close(loss, clip_loss(z_image, z_text, logit_scale=scale), rtol=0, atol=0)
    assert torch.isfinite(clip_loss(torch.full((4, 3), 1e20), torch.zeros(4, 3), logit_scale=scale))


def test_clip_loss_refuses_other_shapes(views):
    with pytest.raises(ValueError, match="equal shapes"):
        clip_loss(views[0], views[1][:3], logit_scale=torch.tensor(1.0))
