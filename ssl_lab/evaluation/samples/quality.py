"""Quality of samples beside real images, and the classes they fall into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.protocol import FeatureSet, Protocol
from ssl_lab.evaluation.samples.distances import (
    Gaussian,
    draw_subsets,
    fit_gaussian,
    frechet_distance,
    kernel_between,
    kernel_distance,
    kernel_within,
)
from ssl_lab.evaluation.samples.manifolds import Manifold, fit_manifold, support_metrics
from ssl_lab.evaluation.samples.metrics import SAMPLE_QUALITY_METRICS
from ssl_lab.evaluation.samples.real_images import cached, content_digest, module_digest, real_features, some_rows
from ssl_lab.types import Batch, Encoder

BATCH = 500
_VERSION = 2  # of what is remembered of real images
CLASSIFIER_NEIGHBORS = 5


class SampleQuality(Protocol):
    """Distances between samples and the scored split on features of a named encoder, their support, and classes.

    All depend on the encoder and on the number of samples, which their names carry: ``frechet/<encoder>_n<N>`` and
    ``kid/<encoder>_n<N>`` (:mod:`ssl_lab.evaluation.samples.distances`), ``precision/...``, ``recall/...``,
    ``density/...`` and ``coverage/...`` (:mod:`ssl_lab.evaluation.samples.manifolds`, against as many real images as
    samples). The distance is not FID, which is defined on one particular Inception network
    (:class:`~ssl_lab.evaluation.samples.fid.FID`). Samples are rounded to
    uint8 first, so that they take the same way as stored images. The same for N train images, or all if there are fewer
    (``..._real``), says what a perfect generator would reach.

    On labelled data a classifier counts into which classes samples fall: ``samples/class_share_<k>`` and
    ``samples/min_class_share``. It is the vote of the 5 nearest train images (:class:`KNN`), as on pixels neighbours
    beat a linear probe: 98.2 % against 97.6 % on the bundled digits. ``samples/classifier_top1`` is its accuracy
    on the scored split.

    What depends on real images alone is computed once for a split, and with an encoder kept in the cache folder.

    Args:
        encoder: The feature extractor, used in eval mode; None for raw pixels.
        encoder_name: Its name in the metrics; None for ``pixels``, or for the encoder's class and a digest of its weights.
        num_samples: Number of samples N.
        seed: Seed of the latents, and of the rows and subsets that are drawn.

    Raises:
        ValueError: If pixels are named otherwise or an encoder is named pixels, fewer than two samples are asked for, or
            the encoder reads images with another number of channels than the data's.

    References:
        Heusel et al. (2017), Frechet distance of Gaussians. arXiv:1706.08500
        Binkowski et al., Demystifying MMD GANs (2018). arXiv:1801.01401
        Kynkaanniemi et al., Improved Precision and Recall (2019). arXiv:1904.06991
        Naeem et al., Reliable Fidelity and Diversity Metrics (2020). arXiv:2002.09797
    """

    metrics = SAMPLE_QUALITY_METRICS
    needs: ClassVar[str] = "sample"
    told_by_names: ClassVar[tuple[str, ...]] = ("encoder_name",)

    def __init__(
        self,
        *,
        encoder: Encoder | None = None,
        encoder_name: str | None = None,
        num_samples: int = 2000,
        seed: int = 0,
    ) -> None:
        if encoder_name is not None and (encoder is None) != (encoder_name == "pixels"):
            found = "raw pixels" if encoder is None else type(encoder).__name__
            raise ValueError(
                f"Cannot judge samples by features named {encoder_name!r}: found {found}. Name an "
                "encoder by encoder_name=, and leave both out for pixels."
            )
        if num_samples < 2:
            raise ValueError(f"Distances need a covariance, so at least 2 samples; found num_samples={num_samples}.")
        self.encoder = encoder
        self.encoder_digest = "" if encoder is None else module_digest(encoder)
        own_name = "pixels" if encoder is None else f"{type(encoder).__name__.lower()}_{self.encoder_digest[:6]}"
        self.encoder_name = encoder_name or own_name
        self.num_samples = num_samples
        self.seed = seed
        self._known: WeakKeyDictionary[DataModule, dict[Any, _Real]] = WeakKeyDictionary()

    @torch.no_grad()
    def run(
        self, fn: Callable[..., Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score samples ``fn(num_samples, generator) -> (N, C, H, W)`` in [0, 1]."""
        embed = self._embed(datamodule, device)
        known = self._known.setdefault(datamodule, {})
        if (split, device) not in known:
            known[split, device] = self._real(embed, datamodule, split, device)
        real = known[split, device]
        fake = torch.cat([embed({"image": batch}).float() for batch in draw(fn, self.num_samples, device, self.seed)])

        name = f"{self.encoder_name}_n{self.num_samples}"
        metrics = {f"{kind}/{name}": value for kind, value in real.compare(fake).items()}
        metrics |= {f"{kind}/{name}_real": value for kind, value in real.floor.items()}
        if real.labelled and (datamodule.spec.num_classes or 0) > 1:
            assert datamodule.spec.num_classes is not None
            classes = _classify(fake, real.train, datamodule.spec.num_classes)
            shares = wide(torch.bincount(classes, minlength=datamodule.spec.num_classes)) / len(classes)
            metrics |= {f"samples/class_share_{k}": float(share) for k, share in enumerate(shares)}
            metrics |= {"samples/min_class_share": float(shares.min()), "samples/classifier_top1": real.classifier_top1}
        return metrics

    def _embed(self, datamodule: DataModule, device: torch.device) -> Callable[[Batch], Tensor]:
        if self.encoder is None:
            return datamodule.spec.raw
        read, found = self.encoder.spec.shape[0], datamodule.spec.shape[0]
        if read != found:
            raise ValueError(
                f"Cannot judge samples by {self.encoder_name}: it reads images of {read} channels, and the data "
                f"have {found}. Choose an encoder that was trained on images with as many channels."
            )
        return self.encoder.to(device).eval().embed

    def _real(
        self, embed: Callable[[Batch], Tensor], datamodule: DataModule, split: str, device: torch.device
    ) -> _Real:
        def remember(facts: list[Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            return compute() if self.encoder is None else cached([self.encoder_digest, *facts], compute, device)

        digests = [] if self.encoder is None else [content_digest(datamodule, part) for part in ("train", split)]
        train, scored = (
            remember(digests[k : k + 1], partial(real_features, embed, datamodule, part, device))
            for k, part in enumerate(("train", split))
        )
        number, seed, num_classes = self.num_samples, self.seed, datamodule.spec.num_classes
        statistics = remember(
            [*digests, number, seed, num_classes, _VERSION],
            partial(_statistics, train, scored, number, seed, num_classes),
        )
        return _Real(train, scored, statistics, number, seed)


class _Real:
    """Reference for samples: features and labels of the train and of the scored split, and their statistics."""

    def __init__(
        self,
        train: dict[str, Tensor],
        scored: dict[str, Tensor],
        statistics: dict[str, Tensor],
        num_samples: int,
        seed: int,
    ) -> None:
        self.train = train
        self.x = scored["x"]
        self.gaussian = Gaussian(statistics["mean"], statistics["root"])
        self.subsets = draw_subsets(num_samples, len(self.x), seed=seed)
        self.kernel_within = float(statistics["kernel_within"])
        radii = {int(name.removeprefix("radii_")): value for name, value in statistics.items() if "radii_" in name}
        self.manifold = Manifold(wide(some_rows(self.x, num_samples, seed)), radii)
        self.labelled = "classifier_top1" in statistics
        self.classifier_top1 = float(statistics.get("classifier_top1", torch.nan))
        self.floor = {
            name.removeprefix("floor_"): float(value) for name, value in statistics.items() if "floor_" in name
        }

    def compare(self, fake: Tensor) -> dict[str, float]:
        """Distances and support of features of samples (N, D)."""
        within = kernel_within(fake, self.subsets.x) + self.kernel_within
        return {
            "frechet": frechet_distance(fake, self.gaussian),
            "kid": within - 2 * kernel_between(fake, self.x, self.subsets),
            **support_metrics(fit_manifold(fake), self.manifold),
        }


def _statistics(
    train: dict[str, Tensor], scored: dict[str, Tensor], num_samples: int, seed: int, num_classes: int | None
) -> dict[str, Tensor]:
    """Compute everything that depends on real images alone and is small."""
    x, fake = scored["x"], some_rows(train["x"], num_samples, seed)
    gaussian, manifold = fit_gaussian(x), fit_manifold(some_rows(x, num_samples, seed))
    floor = {
        "frechet": frechet_distance(fake, gaussian),
        "kid": kernel_distance(fake, x, seed=seed),
        **support_metrics(fit_manifold(fake), manifold),
    }
    scalars = {f"floor_{name}": value for name, value in floor.items()}
    scalars["kernel_within"] = kernel_within(x, draw_subsets(num_samples, len(x), seed=seed).y)
    if "y" in train and "y" in scored and num_classes is not None:
        labelled = some_rows((scored["y"] >= 0).nonzero()[:, 0], num_samples, seed)  # -1 marks an unlabelled sample
        right = _classify(x[labelled], train, num_classes) == scored["y"][labelled]
        scalars["classifier_top1"] = float(wide(right).mean())
    return {
        "mean": gaussian.mean,
        "root": gaussian.root,
        **{f"radii_{k}": radii for k, radii in manifold.radii.items()},
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()},
    }


def _classify(x: Tensor, train: dict[str, Tensor], num_classes: int) -> Tensor:
    known = train["y"] >= 0
    features = FeatureSet(
        train_x=train["x"][known],
        train_y=train["y"][known],
        test_x=x,
        test_y=torch.empty(0),
        num_classes=num_classes,
    )
    return KNN().predict(features, CLASSIFIER_NEIGHBORS)


def draw(fn: Callable[..., Tensor], num_samples: int, device: torch.device, seed: int) -> Iterator[Tensor]:
    """Batches of samples as they would be stored: uint8 (B, C, H, W), from one seeded stream."""
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, num_samples, BATCH):
        images = fn(min(BATCH, num_samples - start), generator)
        if not bool(images.isfinite().all()):
            raise ValueError(
                "Cannot judge samples that are not finite: the training has diverged. Lower optim.lr, or judge an earlier "
                "checkpoint."
            )
        yield images.clamp(0, 1).mul(255).round().byte()
