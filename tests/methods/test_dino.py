import math

import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, FixedMultiCrop, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.losses.clustering import swapped_prediction
from ssl_lab.methods.dino import DINO
from ssl_lab.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(encoder=None, **settings):
    torch.manual_seed(0)
    encoder = encoder or ConvNet(IMAGES, widths=(4, 8))
    settings = {"num_prototypes": 6, "hidden_dim": 8, "projection_dim": 4, **settings}
    method = DINO(encoder, SGD(), FixedMultiCrop(), **settings).double()
    method.progress = lambda: 0.0
    return method


def train(method, num_steps):
    """Yield after each step."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for step in range(num_steps):
        method.progress = lambda step=step: step / num_steps
        optimizer.zero_grad()
        method.training_step(images(step), 0).backward()
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        method.after_step()
        yield


def test_each_view_predicts_the_centred_sharpened_outputs_of_the_teacher():
    method, batch = make(), images(0)
    method.centre.copy_(torch.linspace(-0.1, 0.1, 6))
    large, small = FixedMultiCrop()(batch)
    targets = ((method.teacher(large) - method.centre) / 0.04).softmax(1).view(2, NUM_SAMPLES, 6)
    h = torch.cat([method.encoder.embed(large), method.encoder.embed(small)])
    scores = method.prototypes(method.projector(h)).view(4, NUM_SAMPLES, 6)
    loss = method.training_step(batch, 0)
    torch.testing.assert_close(loss, swapped_prediction(targets, scores, temperature=0.1))
    loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.student().parameters())


def test_a_vision_transformer_learns_from_smaller_views():
    options = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    method = make(TimmModel(IMAGES, name="vit_tiny_patch16_224", options=options))
    before = {name: p.detach().clone() for name, p in method.encoder.named_parameters()}
    for _ in train(method, 2):
        assert torch.isfinite(method.last_loss)
    assert all(not torch.equal(before[name], p) for name, p in method.encoder.named_parameters())


def test_the_teachers_temperature_rises_over_its_share_of_all_steps():
    method = make(warmup_teacher_temperature=0.04, teacher_temperature=0.07, temperature_warmup_fraction=0.2)
    found = [method.teacher_temperature_at(progress) for progress in (0.0, 0.1, 0.2, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert make(temperature_warmup_fraction=0.0).teacher_temperature_at(0.0) == 0.07


def test_prototypes_stay_for_their_share_of_all_steps_and_then_move():
    method = make(freeze_prototypes_fraction=0.5)
    weights = [method.prototypes.weight.detach().clone()]
    for _ in train(method, 4):
        weights.append(method.prototypes.weight.detach().clone())
    moved = [not torch.equal(weights[i], weights[i + 1]) for i in range(4)]
    assert moved == [False, False, True, True]


@pytest.mark.parametrize("num_parts", [1, 2])
def test_the_centre_follows_the_teachers_outputs_once_a_step(num_parts):
    method = make(centre_momentum=0.9)
    outputs = []
    method.teacher.register_forward_hook(lambda module, inputs, output: outputs.append(output.mean(0)))
    expected = torch.zeros(6, dtype=torch.float64)
    for step in range(2):
        for part in range(num_parts):
            method.training_step(images(10 * step + part), 0)
        torch.testing.assert_close(method.centre, expected)
        method.after_step()
        expected = 0.9 * expected + 0.1 * torch.stack(outputs[-num_parts:]).mean(0)
        torch.testing.assert_close(method.centre, expected)


def test_the_teacher_is_a_moving_average_and_gives_the_features():
    method = make(momentum=0.5, final_momentum=0.5)
    start = [p.clone() for p in method.teacher.network.parameters()]
    next(train(method, 1))
    student, teacher = method.student().parameters(), method.teacher.network.parameters()
    for before, own, followed in zip(start, teacher, student, strict=True):
        torch.testing.assert_close(own, (before + followed) / 2)
    batch = images(0)
    averaged, trained = (
        method.in_eval_mode(encoder)(batch["image"]) for encoder in (method.teacher.network.encoder, method.encoder)
    )
    torch.testing.assert_close(method.features(batch), averaged.detach())
    assert not torch.allclose(method.features(batch), trained.detach())


def test_the_logged_entropy_tells_both_kinds_of_collapse(monkeypatch):
    method, logged = make(), {}
    monkeypatch.setattr(method, "log_losses", lambda loss, **parts: logged.update(parts) or loss)
    method.teacher.network.prototypes.weight.fill_(1.0)  # all outputs alike
    method.training_step(images(0), 0)
    assert logged["teacher_entropy"].item() == pytest.approx(math.log(6))
    method.centre[1:] = 10.0  # one output is always chosen
    method.training_step(images(0), 0)
    assert logged["teacher_entropy"].item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student_temperature": 0.0}, "temperatures"),
        ({"teacher_temperature": -0.1}, "temperatures"),
        ({"centre_momentum": 1.1}, "centre_momentum"),
        ({"freeze_prototypes_fraction": -0.1}, "freeze_prototypes_fraction"),
        ({"momentum": 1.2}, "momentum"),
    ],
)
def test_refuses_settings_without_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(("hidden_norm", "count"), [(False, 0), (True, 2)])
def test_hidden_layers_are_normalised_on_request(hidden_norm, count):
    method = make(hidden_norm=hidden_norm)
    for network in (method.projector, method.teacher.network.projector):
        kinds = [type(layer).__name__ for layer in network]
        assert kinds.count("BatchNorm1d") == count and kinds.count("GELU") == 2 and kinds[-1] == "Linear"
