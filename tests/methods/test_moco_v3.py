import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.moco_v3 import MoCoV3
from ssl_lab.optim import SGD
from ssl_lab.pretext.base import halves

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(**settings):
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    return MoCoV3(encoder, SGD(), FixedViews(), hidden_dim=16, projection_dim=8, **settings).double()


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_is_the_papers_scaled_by_twice_the_temperature(temperature):
    method = make(temperature=temperature)
    x_a, x_b = halves(FixedViews()(images(0)))
    total = 0
    for x, other in ((x_a, x_b), (x_b, x_a)):
        q = torch.nn.functional.normalize(method.predictor(method.projector(method.encoder.embed(x))), dim=1)
        k = torch.nn.functional.normalize(method.teacher(other), dim=1)
        logits = q @ k.T / temperature
        total += torch.nn.functional.cross_entropy(logits, torch.arange(NUM_SAMPLES)) * 2 * temperature
    torch.testing.assert_close(method.training_step(images(0), 0), total)


def test_only_the_student_is_trained():
    method = make()
    method.training_step(images(0), 0).backward()
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"encoder", "projector", "predictor"}


def test_the_teacher_follows_after_the_step():
    method = make(momentum=0.9, final_momentum=0.9)
    method.progress = lambda: 0.0
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.student().parameters():
            p.sub_(2.0)
    method.after_step()
    for own, start in zip(method.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(own, start - 0.2)


def test_refuses_a_temperature_of_nothing():
    with pytest.raises(ValueError, match="temperature must be positive"):
        make(temperature=0.0)
