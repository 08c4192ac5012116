"""The Frechet inception distance, on the one network that it is defined on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.evaluation.samples.distances import Gaussian, fit_gaussian, frechet_distance
from ssl_lab.evaluation.samples.metrics import FID_METRICS
from ssl_lab.evaluation.samples.quality import draw
from ssl_lab.evaluation.samples.real_images import MAX_REAL, cached, content_digest, real_features
from ssl_lab.extras import require
from ssl_lab.types import Batch

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
DIGEST = "6726825d"
"""First digits of the SHA-256 of the file, as in its name."""


class FID(Protocol):
    """Frechet inception distance between N samples and M train images: ``fid/bilinear_n<N>_train<M>``.

    As in the reference: the Inception network of 2015 with TensorFlow's weights, its 2048 pooled features, images rounded
    to uint8, then resized to 299 x 299 by TensorFlow 1's bilinear interpolation without antialiasing (all from
    torch-fidelity); covariances in fp64. Grey images are repeated in three channels. M is the whole train split, 50,000
    rows of it if it is larger. FID falls with N: only figures of one N, usually 50,000, may be compared.

    Weights are never downloaded, and no other network's distance is given this name: :class:`SampleQuality` measures on
    any encoder.

    Args:
        weights: The weights file; None for where torch.hub keeps its downloads.
        num_samples: Number of samples N.
        seed: Seed of the latents.

    Raises:
        MissingPackageError: If torch-fidelity is not installed.
        ValueError: If fewer than two samples are asked for, or the file is missing or
            another one.

    References:
        Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017). arXiv:1706.08500
        Parmar et al., On Aliased Resizing (2022). arXiv:2104.11222
    """

    metrics = FID_METRICS
    needs: ClassVar[str] = "sample"
    told_by_names: ClassVar[tuple[str, ...]] = ("weights",)  # all others are refused
    signature = "Inception 2015 (TensorFlow weights), uint8, bilinear 299 without antialiasing, fp64 statistics"

    def __init__(self, *, weights: str | None = None, num_samples: int = 50_000, seed: int = 0) -> None:
        if num_samples < 2:
            raise ValueError(f"FID needs a covariance, so at least 2 samples; found num_samples={num_samples}.")
        self.weights = _find_weights(weights)
        self.num_samples = num_samples
        self.seed = seed

    @cached_property
    def inception(self) -> nn.Module:
        """The network, from a batch of images, uint8 (B, 3, H, W), to a tuple of features (B, 2048)."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Refuses code, which the library would run. Not memory-mapped: the file may be older than torch's zip format.
        torch.load(self.weights, map_location="cpu", weights_only=True)
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(self.weights))

    @torch.no_grad()
    def run(
        self, fn: Callable[..., Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Compare samples ``fn(num_samples, generator)`` with the train split; ``split`` is not looked at."""
        self.inception.to(device)
        num_real = min(MAX_REAL, datamodule.eval_dataloader("train").num_samples)
        facts = ["fid", DIGEST, content_digest(datamodule, "train"), num_real]
        real = cached(facts, partial(self._moments, datamodule, device), device)
        fake = torch.cat([self._embed({"image": batch}) for batch in draw(fn, self.num_samples, device, self.seed)])
        distance = frechet_distance(fake, Gaussian(real["mean"], real["root"]))
        return {f"fid/bilinear_n{self.num_samples}_train{num_real}": distance}

    def _embed(self, batch: Batch) -> Tensor:
        images = batch["image"]
        return self.inception(images.expand(-1, 3, -1, -1))[0]  # type: ignore[no-any-return]

    def _moments(self, datamodule: DataModule, device: torch.device) -> dict[str, Tensor]:
        return fit_gaussian(real_features(self._embed, datamodule, "train", device)["x"])._asdict()


def _find_weights(given: str | None) -> Path:
    require("compute FID", "torch-fidelity")
    advice = (
        f"Fetch {URL} where there is a network and put it there, or give its place by evaluation.fid.weights=PATH. "
        "Without it, evaluation=samples measures the same distance on pixels or on an encoder of yours."
    )
    path = Path(torch.hub.get_dir(), "checkpoints", WEIGHTS) if given is None else Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"FID needs the Inception weights of 2015, but there is no file {path.absolute()}. {advice}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(DIGEST):
        raise ValueError(
            f"FID is defined on the Inception weights of 2015, whose SHA-256 begins with {DIGEST}, but that of "
            f"{path.absolute()} begins with {found[:8]}. {advice}"
        )
    return path
