"""An encoder whose ``embed`` does not pass through a forward pass trains, is listened to and timed, or is refused by name."""

import lightning as L
import pytest
import torch
from arrays import ArrayImages
from omegaconf import OmegaConf
from torch import nn

from ssl_lab.cli import build
from ssl_lab.engine.bench import bench
from ssl_lab.engine.callbacks.encoder_tap import EncoderTap
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.optim import SGD
from ssl_lab.pretext.views import TwoViews, View
from ssl_lab.types import Encoder


class EmbedAlone(Encoder):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.embed_dim = spec, 8
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))

    def embed(self, batch):
        return self.layers(batch["image"].float())


pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of this short a training


def simclr(encoder):
    views = TwoViews(View(crop_scale=(0.5, 1.0), flip_prob=0.0))
    return SimCLR(encoder, SGD(lr=0.1), views, hidden_dim=16, projection_dim=8)


def test_taps_hear_embed_in_training_and_leave_nothing_behind():
    encoder = EmbedAlone(ArrayImages().spec)
    batch = {"image": torch.rand(4, 1, 8, 8)}
    first, second = EncoderTap(encoder), EncoderTap(encoder)
    features = encoder.embed(batch)
    encoder.embed({"image": torch.zeros(4, 1, 8, 8)})
    assert torch.equal(first.take(), features) and torch.equal(second.take(), features)
    encoder.eval().embed(batch)
    assert first.take() is None
    first.remove()
    assert torch.equal(encoder.train().embed(batch), second.take()) and first.take() is None
    second.remove()
    assert torch.equal(encoder.embed(batch), features) and second.take() is None


def test_its_time_alone_is_that_of_embed(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        max_steps=11,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = ArrayImages()
    speed = bench(simclr(EmbedAlone(data.spec)), data, trainer, warmup_steps=1, num_steps=5)
    assert 0 < speed.bare_ms < speed.step_ms and speed.ratio > 1


class ForwardAside(EmbedAlone):
    def forward(self, images):
        return self.layers(images)


@pytest.mark.parametrize("kind", [EmbedAlone, ForwardAside])
def test_compiling_nothing_is_refused_by_name(kind, monkeypatch):
    monkeypatch.setattr(build, "build_encoder", lambda node, spec, **_: kind(spec))
    monkeypatch.setattr(build, "instantiate", lambda node, **_: lambda encoder, optim: simclr(encoder))
    cfg = OmegaConf.create({"encoder": {}, "optim": {}, "method": {}, "compile": True})
    with pytest.raises(ValueError, match=f"Cannot compile {kind.__name__}: its embed does not pass through a forward"):
        build.build_method(cfg, ArrayImages().spec)
