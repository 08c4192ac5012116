import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, FixedMultiCrop, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.heads import Prototypes
from ssl_lab.losses.clustering import sinkhorn_knopp, swapped_prediction
from ssl_lab.methods.swav import SwAV
from ssl_lab.optim import SGD
from ssl_lab.pretext.multi_crop import MultiCrop
from ssl_lab.pretext.views import TwoViews, View

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(views=None, **settings):
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(4, 8))
    settings = {"num_prototypes": 6, "hidden_dim": 8, "projection_dim": 4, **settings}
    return SwAV(encoder, SGD(), views or FixedMultiCrop(), **settings).double()


def train(method, num_steps):
    """Yield after each step."""
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
    for step in range(num_steps):
        method.progress = lambda step=step: step / num_steps
        optimizer.zero_grad()
        method.training_step(images(step), 0).backward()
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        method.after_step()
        yield


def test_each_view_predicts_the_codes_of_the_global_ones():
    method, batch = make(), images(0)
    large, small = FixedMultiCrop()(batch)
    h = torch.cat([method.encoder.embed(large), method.encoder.embed(small)])
    scores = method.prototypes(method.projector(h)).view(4, NUM_SAMPLES, 6)
    codes = torch.stack([sinkhorn_knopp(s, epsilon=0.05, num_iterations=3) for s in scores[:2]])
    expected = swapped_prediction(codes, scores, temperature=0.1)
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_former_projections_of_a_view_are_assigned_beside_it_once_the_queue_is_used():
    method = make(queue_size=5, queue_start_fraction=0.5)
    assert all(queue.features.shape == (5, 4) for queue in method.queues)
    start = [queue.features.clone() for queue in method.queues]
    steps = train(method, 4)
    for _ in range(2):
        before = method.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        next(steps)
    assert not any(torch.equal(queue.features, old) for queue, old in zip(method.queues, start, strict=True))

    # The projections that the second step pushed: the last five rows, at unit length.
    reference = make(queue_size=5)
    reference.load_state_dict(before)
    large, small = FixedMultiCrop()(images(1))
    h = torch.cat([reference.encoder.embed(large), reference.encoder.embed(small)])
    pushed = torch.nn.functional.normalize(reference.projector(h).view(4, NUM_SAMPLES, 4)[:2, -5:], dim=2)
    for queue, expected in zip(method.queues, pushed, strict=True):
        order = torch.arange(queue.num_pushed - 5, queue.num_pushed) % 5
        torch.testing.assert_close(queue.features[order], expected)

    method.progress = lambda: 0.5
    large, small = FixedMultiCrop()(images(2))
    h = torch.cat([method.encoder.embed(large), method.encoder.embed(small)])
    scores = method.prototypes(method.projector(h)).view(4, NUM_SAMPLES, 6)
    codes = []
    for view in range(2):
        both = torch.cat([method.prototypes(method.queues[view].features), scores[view]])
        codes.append(sinkhorn_knopp(both, epsilon=0.05, num_iterations=3)[5:])
    expected = swapped_prediction(torch.stack(codes), scores, temperature=0.1)
    torch.testing.assert_close(method.training_step(images(2), 0), expected)
    method.progress = lambda: 0.49
    assert not torch.isclose(method.training_step(images(2), 0), expected)


def test_a_queue_that_is_not_full_is_not_used():
    method, without = make(queue_size=NUM_SAMPLES + 1, queue_start_fraction=0.0), make()
    method.progress = lambda: 0.0
    assert torch.equal(method.training_step(images(0), 0), without.training_step(images(0), 0))
    for _ in train(method, 2):
        pass
    assert all(queue.is_full() for queue in method.queues)


def test_prototypes_stay_for_their_share_of_all_steps_and_then_move():
    method = make(freeze_prototypes_fraction=0.5)
    weights = [method.prototypes.weight.detach().clone()]
    for _ in train(method, 4):
        weights.append(method.prototypes.weight.detach().clone())
    moved = [not torch.equal(weights[i], weights[i + 1]) for i in range(4)]
    assert moved == [False, False, True, True]


def test_scores_are_cosines_in_full_precision():
    prototypes = make().float().prototypes
    z = torch.randn(5, 4)
    expected = torch.cosine_similarity(z.unsqueeze(1), prototypes.weight.unsqueeze(0), dim=2)
    for scale in (0.01, 100.0):
        torch.testing.assert_close(prototypes(scale * z), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(prototypes(z), expected, rtol=0, atol=1e-6)


def test_two_global_views_are_enough():
    method = make(MultiCrop(TwoViews(View()), View(), num_local=0)).float()
    method.training_step(images(0), 0).backward()
    assert torch.isfinite(method.last_loss)
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature > 0"),
        ({"epsilon": -1.0}, "epsilon > 0"),
        ({"num_sinkhorn_iterations": 0}, "num_sinkhorn_iterations >= 1"),
        ({"queue_start_fraction": -0.1}, r"queue_start_fraction is a share of all steps in \[0, 1\]"),
        ({"freeze_prototypes_fraction": 1.5}, r"share of all steps in \[0, 1\], found 1.5"),
    ],
)
def test_refuses_settings_without_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_prototypes_have_length_one_after_a_step_and_frozen_ones_are_left_alone():
    prototypes = Prototypes(4, 3)
    with torch.no_grad():
        prototypes.weight.mul_(torch.tensor([[1.5], [0.5], [1.0]]))
    before = prototypes(torch.eye(4))
    prototypes.normalise()
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(prototypes(torch.eye(4)), before)
