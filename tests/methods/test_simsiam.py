from types import SimpleNamespace

import pytest
import torch
from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.simsiam import SimSiam
from ssl_lab.optim import SGD
from ssl_lab.pretext.base import halves

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


@pytest.fixture
def method():
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    settings = {"hidden_dim": 16, "projection_dim": 8, "predictor_hidden_dim": 4}
    return SimSiam(encoder, SGD(lr=0.5, warmup_fraction=0.0), FixedViews(), **settings).double()


def test_loss_and_gradient_are_those_of_fixed_targets(method):
    batch = images(0)
    targets = [method.projector(method.encoder.embed(x)).detach() for x in halves(FixedViews()(batch))]
    predictions = [method.predictor(method.projector(method.encoder.embed(x))) for x in halves(FixedViews()(batch))]
    cosines = [torch.cosine_similarity(p, z).mean() for p, z in zip(predictions, reversed(targets), strict=True)]
    expected = -sum(cosines) / 2
    gradients = torch.autograd.grad(expected, list(method.parameters()))
    loss = method.training_step(batch, 0)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for p, gradient in zip(method.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_projections_are_normalised_and_predictions_are_not(method):
    assert method.projector[-1].affine is False
    assert isinstance(method.predictor[-1], torch.nn.Linear)
    assert method.predictor[0].out_features == 4


def test_only_the_predictor_keeps_its_learning_rate(method, monkeypatch):
    monkeypatch.setattr(SimSiam, "trainer", SimpleNamespace(estimated_stepping_batches=2))
    configured = method.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    predictor = {id(p) for p in method.predictor.parameters()}
    optimizer.step()
    schedule.step()
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert group["lr"] == pytest.approx(0.5 if id(p) in predictor else 0.25)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(method.parameters()))
