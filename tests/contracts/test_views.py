"""Joint-embedding methods know no modality: they train on whatever has views and an encoder, here waveforms."""

from dataclasses import dataclass

import pytest
import torch
from arrays import ArrayImages
from ranks.fixed import FixedMultiCrop, FixedViews
from torch import nn

from ssl_lab.data.base import DataModule
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.byol import BYOL
from ssl_lab.methods.dino import DINO
from ssl_lab.methods.moco_v2 import MoCoV2
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.optim import AdamW
from ssl_lab.pretext.base import Views
from ssl_lab.pretext.views import View
from ssl_lab.testing import check_method, train
from ssl_lab.types import Classes, Encoder, Spec

SMALL = {"hidden_dim": 16, "projection_dim": 8}


@dataclass(frozen=True, kw_only=True)
class WaveSpec(Spec):
    modality = "waveform"
    kind = "waveforms"
    columns = ("waveform",)
    raw_name = "raw samples"
    shape: tuple[int, ...]

    def raw(self, batch):
        return batch["waveform"]

    def example(self, num_samples):
        return {"waveform": torch.rand(num_samples, *self.shape, generator=torch.Generator().manual_seed(0))}


class Tones(DataModule):
    """A high or a low tone of random phase in 64 samples."""

    @property
    def spec(self):
        return WaveSpec(shape=(64,), targets={"label": Classes(number=2)})

    def columns(self, split):
        label = torch.arange(64) % 2
        phase = torch.rand(64, 1, generator=torch.Generator().manual_seed(len(split)))
        return {"waveform": torch.sin(6 * (phase + torch.arange(64) * (1 + label.unsqueeze(1)) / 8)), "label": label}


class WaveNet(Encoder):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.embed_dim = spec, 8
        self.layers = nn.Sequential(nn.Conv1d(1, 8, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())

    def embed(self, batch):
        return self.layers(batch["waveform"].unsqueeze(1))


class Louder(Views):
    """Another volume and noise."""

    takes = WaveSpec

    def forward(self, batch, generator=None):
        x = torch.cat([batch["waveform"]] * 2)
        volume = 0.5 + torch.rand(len(x), 1, device=x.device, generator=generator)
        return {"waveform": volume * x + 0.1 * torch.randn(x.shape, device=x.device, generator=generator)}


@pytest.mark.parametrize("method", [SimCLR, BYOL, MoCoV2])
def test_the_methods_of_images_train_on_waveforms(method):
    data = Tones(batch_size=16)
    more = {"queue_size": 32} if method is MoCoV2 else {}

    def build():
        return method(WaveNet(data.spec), AdamW(lr=1e-2), Louder(), **SMALL, **more)

    check_method(build, data)
    built = build()
    train(built, data)
    batch = next(iter(data.eval_dataloader("val")))
    assert built.capabilities()["view_features"](batch, 3).shape == (3, *built.features(batch).shape)
    assert built.pictures(batch) == {}


PIXELS, WAVES = ConvNet(ArrayImages().spec, widths=(8,)), WaveNet(Tones().spec)


@pytest.mark.parametrize(
    ("method", "encoder", "views", "message"),
    [
        (
            SimCLR,
            PIXELS,
            Louder(),
            r"SimCLR, which compares views of Louder, takes waveforms, but the data is images",
        ),
        (BYOL, WAVES, FixedViews(), r"views of FixedViews, takes images, but the data is waveforms"),
        (SimCLR, PIXELS, View(), "two views of one size, which View does not draw"),
        (SimCLR, PIXELS, FixedMultiCrop(), "which FixedMultiCrop does not draw"),
        (
            DINO,
            PIXELS,
            FixedViews(),
            "Choose others, such as views@method.views=multi_crop",
        ),
    ],
)
def test_wrong_views_are_refused_before_training(method, encoder, views, message):
    with pytest.raises(ValueError, match=message):
        method(encoder, AdamW(), views)
