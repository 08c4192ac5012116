import warnings

import lightning as L
import pytest
import torch
from arrays import ArrayImages
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.parts.alternating import AlternatingMethod, Player
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD


class Chase(AlternatingMethod):
    """One number runs after another one, which runs away on every second batch."""

    takes = ImageSpec

    def __init__(self, encoder):
        plain = SGD(lr=0.1, momentum=0.0, weight_decay=0.0, warmup_fraction=0.0)
        super().__init__(encoder, plain)
        self.hunter, self.hare = (nn.Linear(1, 1, bias=False) for _ in range(2))
        self.rates, self.progresses = {"hunter": [], "hare": []}, []

    def players(self):
        return {"hunter": Player((self.hunter,), self.optim), "hare": Player((self.hare,), self.optim, 2)}

    def gap(self):
        return (self.hunter.weight - self.hare.weight).square().sum()

    def step(self, name, loss):
        optimizer = self.optimizers()[list(self.players()).index(name)]
        self.rates[name].append(optimizer.param_groups[0]["lr"])
        self.update(name, loss)

    def training_step(self, batch, batch_idx):
        self.step("hunter", self.gap())
        if (batch_idx + 1) % 2 == 0:
            self.step("hare", -0.5 * self.gap())
        self.progresses.append(self.progress())


def fit(method, folder, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(method, datamodule=ArrayImages())
    return trainer


def chase():
    torch.manual_seed(0)
    return Chase(ConvNet(ArrayImages().spec, widths=(4,)))


def test_each_player_moves_down_the_gradient_of_its_own_loss(tmp_path):
    method = chase()
    hunter, hare = method.hunter.weight.item(), method.hare.weight.item()
    fit(method, tmp_path, max_steps=4)
    for batch in range(4):
        rate = 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * batch / 4)))
        hunter -= rate * 2 * (hunter - hare)
        if batch % 2 == 1:
            rate = 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (batch // 2) / 2)))
            hare -= rate * (hunter - hare)
    assert method.hunter.weight.item() == pytest.approx(float(hunter), rel=1e-5)
    assert method.hare.weight.item() == pytest.approx(float(hare), rel=1e-5)


def test_steps_are_batches_and_each_schedule_counts_its_own(tmp_path):
    method = chase()
    trainer = fit(method, tmp_path, max_steps=8)
    assert trainer.global_step == 8
    assert method.progresses == [k / 8 for k in range(1, 9)]
    half_cosine = [0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * k / 8)).item()) for k in range(8)]
    assert method.rates["hunter"] == pytest.approx(half_cosine)
    assert method.rates["hare"] == pytest.approx(half_cosine[::2])


@pytest.mark.parametrize("settings", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_clipping_and_accumulation_are_refused(settings, tmp_path):
    with pytest.raises(Exception, match="not supported for manual optimization"):
        fit(chase(), tmp_path, max_steps=2, **settings)


def test_half_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one loss scale"):
        method = chase()
        method._trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        method.trainer.strategy.precision_plugin.precision = "16-mixed"
        method.on_fit_start()
