"""The checks of methods find what is wrong; that they pass for the lab's own is tested in tests/contracts."""

import pytest
import torch
from arrays import ArrayImages

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.base import Method
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD
from ssl_lab.testing import check_method


class Sound(Method):
    takes = ImageSpec

    def training_step(self, batch, batch_idx):
        return self.log_losses(self.encoder.embed(batch).square().mean())


class ReadsLabels(Sound):
    def training_step(self, batch, batch_idx):
        return self.log_losses((self.encoder.embed(batch).mean(1) - batch["label"]).square().mean())


class LearnsNothing(Sound):
    def training_step(self, batch, batch_idx):
        return self.log_losses(0 * super().training_step(batch, batch_idx))


class NotLogged(Sound):
    def training_step(self, batch, batch_idx):
        return self.encoder.embed(batch).square().mean()


class Noisy(Sound):
    def represent(self, batch):
        features = super().represent(batch)
        return features + torch.randn_like(features)


class ForgetsAScale(Sound):
    def on_train_start(self):
        self.scale = 2.0

    def represent(self, batch):
        return getattr(self, "scale", 1.0) * super().represent(batch)


def check(kind):
    data = ArrayImages()
    check_method(lambda: kind(ConvNet(data.spec, widths=(4,)), SGD(lr=0.1, weight_decay=0.0)), data)


def test_a_sound_method_passes():
    check(Sound)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ReadsLabels, "uses_labels = False, but other labels give other weights"),
        (LearnsNothing, "leaves its encoder as it was"),
        (NotLogged, "no finite loss"),
        (Noisy, "differ from one call to the next"),
        (ForgetsAScale, "has other features"),
    ],
)
def test_what_is_wrong_is_told(kind, message):
    with pytest.raises(AssertionError, match=message):
        check(kind)
