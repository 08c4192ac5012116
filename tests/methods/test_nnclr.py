import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, FixedViews, images
from torch.nn.functional import cross_entropy, normalize

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.nnclr import NNCLR
from ssl_lab.optim import SGD
from ssl_lab.pretext.base import halves

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(**settings):
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    settings = {"queue_size": 40, "hidden_dim": 16, "projection_dim": 8, "predictor_hidden_dim": 16, **settings}
    return NNCLR(encoder, SGD(), FixedViews(), **settings).double()


def projections(method):
    return [method.projector(method.encoder.embed(x)) for x in halves(FixedViews()(images(0)))]


def test_the_loss_contrasts_neighbours_with_the_other_views_predictions():
    method = make()
    z_a, z_b = projections(method)
    total = 0
    for z, other in ((z_a, z_b), (z_b, z_a)):
        queue = method.support_set.features
        neighbours = torch.stack([queue[(normalize(row, dim=0) * queue).sum(1).argmax()] for row in z])
        logits = neighbours @ normalize(method.predictor(other), dim=1).T / 0.1
        total += cross_entropy(logits, torch.arange(NUM_SAMPLES)) / 2
    torch.testing.assert_close(method.training_step(images(0), 0), total)


def test_neighbours_are_positives_of_their_own_once_images_are_in_the_support_set():
    method = make(queue_size=NUM_SAMPLES)
    z_a, _ = projections(method)
    method.support_set.push(z_a)
    torch.testing.assert_close(method.support_set.nearest(z_a), normalize(z_a, dim=1))


def test_the_first_views_projections_enter_the_support_set_after_the_step():
    method = make()
    start = method.support_set.features.clone()
    z_a, _ = projections(method)
    method.training_step(images(0), 0)
    assert torch.equal(method.support_set.features, start)
    method.after_step()
    torch.testing.assert_close(method.support_set.features[:NUM_SAMPLES], normalize(z_a, dim=1))
    assert torch.equal(method.support_set.features[NUM_SAMPLES:], start[NUM_SAMPLES:])


def test_refuses_senseless_settings():
    with pytest.raises(ValueError, match="temperature must be positive"):
        make(temperature=0.0)
    with pytest.raises(ValueError, match="queue_size=0"):
        make(queue_size=0)
