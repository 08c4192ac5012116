import copy

import pytest
import torch
from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.byol import BYOL
from ssl_lab.optim import SGD
from ssl_lab.pretext.base import halves

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


@pytest.fixture
def method():
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    return BYOL(encoder, SGD(), FixedViews(), momentum=0.9, hidden_dim=16, projection_dim=8).double()


def test_the_loss_pairs_each_prediction_with_the_other_views_target(method):
    batch = images(0)
    loss = method.training_step(batch, 0)
    distances = []
    x_a, x_b = halves(FixedViews()(batch))
    for x, other in ((x_a, x_b), (x_b, x_a)):
        p = method.predictor(method.projector(method.encoder.embed(x)))
        z = method.teacher.network.projector(method.teacher.network.encoder.embed(other))
        distances.append(2 - 2 * torch.cosine_similarity(p, z).mean())
    torch.testing.assert_close(loss, sum(distances))
    loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_each_view_is_normalised_by_its_own_statistics(method):
    batches = []
    method.encoder.stages[0][1].register_forward_hook(
        lambda module, args, output: batches.append(output.mean((0, 2, 3)))
    )
    method.training_step(images(0), 0)
    assert len(batches) == 2
    for mean in batches:
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)


def test_the_teacher_follows_encoder_and_projector_after_the_step(method, monkeypatch):
    monkeypatch.setattr(method, "progress", lambda: 0.5)
    before = copy.deepcopy(method.teacher.network)
    with torch.no_grad():
        for p in method.student().parameters():
            p.add_(1.0)
    method.after_step()
    for own, start in zip(method.teacher.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(own, start + 0.05)  # momentum 0.95 half-way from 0.9 to 1


def test_refuses_a_momentum_that_falls():
    with pytest.raises(ValueError, match="rises within"):
        BYOL(ConvNet(IMAGES, widths=(8,)), SGD(), FixedViews(), momentum=0.99, final_momentum=0.9)


def test_batch_normalisation_may_end_the_projector_of_student_and_teacher():
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    normed = BYOL(encoder, SGD(), FixedViews(), hidden_dim=16, projection_dim=8, last_norm=True).double()
    view, _ = halves(FixedViews()(images(0)))
    for z in (normed.student()(view), normed.teacher(view)):
        torch.testing.assert_close(z.mean(0), torch.zeros(8).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(8).double(), atol=1e-2, rtol=0)
