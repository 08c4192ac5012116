import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.losses.contrastive import queue_info_nce
from ssl_lab.methods.moco_v2 import MoCoV2
from ssl_lab.optim import SGD
from ssl_lab.pretext.base import halves

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(**settings):
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    settings = {"queue_size": 40, "momentum": 0.9, "hidden_dim": 16, "projection_dim": 8, **settings}
    method = MoCoV2(encoder, SGD(), FixedViews(), **settings).double()
    method.progress = lambda: 0.0
    return method


def one_direction(method, query_view, key_view):
    q = method.projector(method.encoder.embed(query_view))
    return queue_info_nce(q, method.teacher(key_view), method.queue.features, temperature=0.2)


def test_both_views_are_queries_or_the_first_alone():
    method, batch = make(), images(0)
    x_a, x_b = halves(FixedViews()(batch))
    expected = one_direction(method, x_a, x_b)
    torch.testing.assert_close(make(symmetric=False).training_step(batch, 0), expected)
    expected = (expected + one_direction(method, x_b, x_a)) / 2
    torch.testing.assert_close(make().training_step(batch, 0), expected)


@pytest.mark.parametrize(("symmetric", "directions"), [(True, 2), (False, 1)])
def test_keys_enter_the_queue_after_the_step(symmetric, directions):
    method = make(symmetric=symmetric)
    start = method.queue.features.clone()
    x_a, x_b = halves(FixedViews()(images(0)))
    keys = torch.cat([method.teacher(x) for x in (x_b, x_a)][:directions])
    method.training_step(images(0), 0)
    assert torch.equal(method.queue.features, start)
    method.after_step()
    count = directions * NUM_SAMPLES
    torch.testing.assert_close(method.queue.features[:count], torch.nn.functional.normalize(keys, dim=1))
    assert torch.equal(method.queue.features[count:], start[count:])
    assert method.queue.num_pushed == count


def test_teacher_and_queue_are_in_the_checkpoint_and_untrained():
    method = make()
    assert {"queue.features", "queue.num_pushed"} < set(method.state_dict())
    assert any(name.startswith("teacher.network.projector") for name in method.state_dict())
    method.training_step(images(0), 0).backward()
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"encoder", "projector"}


def test_refuses_senseless_settings():
    with pytest.raises(ValueError, match="temperature must be positive"):
        make(temperature=0.0)
    with pytest.raises(ValueError, match="queue_size=0"):
        make(queue_size=0)
