"""A method small enough to train to the end within a second, and a trainer for it."""

import warnings
from typing import ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from torch import nn

from ssl_lab.methods.base import Method
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import AdamW
from ssl_lab.types import Encoder


class Noise(ArrayImages):
    """Images without any structure: all are equally far apart."""

    def columns(self, split):
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (self.num_samples, *self.shape), dtype=torch.uint8, generator=generator)
        return {"image": image}


class TinyEncoder(Encoder):
    """Two linear layers on pixels."""

    def __init__(self, spec, embed_dim=8):
        super().__init__()
        self.spec, self.embed_dim = spec, embed_dim
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, embed_dim))

    def forward(self, images):
        return self.layers(images.float() / 255 - 0.5)

    def embed(self, batch):
        return self(batch["image"])


class Tiny(Method):
    """Pulls two noisy views of an image together; with ``repel`` above 0 it also pushes images apart."""

    takes: ClassVar = ImageSpec

    def __init__(self, encoder, optim=None, *, repel=0.0, **settings):
        super().__init__(encoder, optim or AdamW(lr=1e-2, weight_decay=0.0, final_lr_fraction=1.0), **settings)
        self.repel = repel

    def training_step(self, batch, batch_idx):
        x = batch["image"].float()
        views = torch.cat([x, x]) + 20 * torch.randn(2 * len(x), *x.shape[1:], device=x.device)
        h_a, h_b = F.normalize(self.encoder.embed({"image": views}), dim=1).chunk(2)
        pull = (h_a - h_b).square().sum(1).mean()
        push = torch.pdist(h_a).square().mul(-2).exp().mean().log()
        return self.log_losses(pull + self.repel * push)


def trainer(folder, *callbacks, epochs=1, **settings):
    """Lightning's on the CPU, silent, one logged row per step."""
    return L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"devices": 1, "logger": False, "log_every_n_steps": 1, **settings},
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def fit(trainer, method, datamodule, **settings):
    """Train, with Lightning's advice silenced and ours as it is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(method, datamodule=datamodule, **settings)
