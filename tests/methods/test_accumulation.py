"""What a method makes of the trainer's counts: accumulated gradients, an incomplete window, the end of training."""

from typing import ClassVar

import pytest
import torch
from arrays import ArrayImages
from engine.tiny import TinyEncoder

from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.token_mean import TokenMean
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD
from ssl_lab.testing import train


class MeanFeature(Method):
    """Its loss is the mean of all features: that of the last bias, 8 wide, has a slope of 1 / 8 whatever the images."""

    takes: ClassVar = ImageSpec

    def __init__(self, encoder, **settings):
        super().__init__(
            encoder, SGD(lr=1.0, weight_decay=0.0, momentum=0.0, warmup_fraction=0.0, final_lr_fraction=1.0)
        )

    def training_step(self, batch, batch_idx):
        return self.log_losses(self.encoder.embed(batch).mean())


class SummedFeatures(MeanFeature):
    """The same by a sum and a number, which differs from batch to batch."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.mean = TokenMean()

    def training_step(self, batch, batch_idx):
        features = self.encoder.embed(batch)[: 8 + 2 * batch_idx]
        loss, mean = self.mean(features.sum(), torch.tensor(features.numel()))
        self.log_losses(mean)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.mean.before_optimizer_step(self.parameters())


@pytest.mark.parametrize("kind", [MeanFeature, SummedFeatures])
@pytest.mark.parametrize("num_batches", [2, 3, 4])
def test_an_incomplete_last_window_is_a_mean_over_its_own_batches(kind, num_batches):
    data = ArrayImages()
    method = kind(TinyEncoder(data.spec))
    before = method.encoder.layers[-1].bias.detach().clone()
    train(method, data, num_steps=num_batches, accumulate_grad_batches=3)
    num_steps = -(-num_batches // 3)
    assert method.trainer.global_step == num_steps
    moved = before - method.encoder.layers[-1].bias.detach()
    torch.testing.assert_close(moved, torch.full_like(moved, num_steps / 8), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [{"max_epochs": -1}, {"max_time": "00:00:00:10"}])
def test_a_training_without_an_end_is_refused(limit):
    data = ArrayImages()
    with pytest.raises(ValueError, match=r"without an end: trainer\.max_epochs=-1 .* Set one of them above 0"):
        train(MeanFeature(TinyEncoder(data.spec)), data, **{"max_epochs": None, **limit})
