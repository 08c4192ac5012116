"""Quality of samples beside real images, and the classes they fall into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.evaluation.samples.class_judge import ClassJudge, class_judge
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
PLAUSIBLE = ("precision", "density")
"""Metrics of the support that say how plausible samples are."""

_VERSION = 3  # of what is remembered of real images


class SampleQuality(Protocol):
    """Distances between samples and the scored split on features of a named encoder, their support, and classes.

    All depend on the encoder and on the number of samples, which their names carry: ``frechet/<encoder>_n<N>`` and
    ``kid/<encoder>_n<N>`` (:mod:`ssl_lab.evaluation.samples.distances`), ``precision/...``, ``recall/...``,
    ``density/...`` and ``coverage/...`` (:mod:`ssl_lab.evaluation.samples.manifolds`, against as many real images as
    samples). The distance is not FID, which is defined on one particular Inception network
    (:class:`~ssl_lab.evaluation.samples.fid.FID`). Samples are rounded to
    uint8 first, so that they take the same way as stored images. The same for N train images, or all if there are fewer
    (``..._real``), says what a perfect generator would reach.

    Precision and density are withheld where samples lie deeper among real images than other real images do, or reach none
    of their kinds: both then praise blurred or repeated images (:func:`withheld`). What was found stands in
    ``samples/precision_withheld`` and ``samples/density_withheld``.

    On labelled data a small network, trained on the train split's labels (:mod:`ssl_lab.evaluation.samples.class_judge`),
    counts into which classes samples fall: ``samples/class_share_<k>`` and ``samples/min_class_share``, and the latter of
    as many train images. ``samples/judge_top1`` is its accuracy on the scored split.

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
        features, classes = [], []
        for batch in draw(fn, self.num_samples, device, self.seed):
            features.append(embed({"image": batch}).float())
            classes += [real.judge.classify(batch)] if real.judge is not None else []

        name = f"{self.encoder_name}_n{self.num_samples}"
        found = real.compare(torch.cat(features))
        unread = withheld(found, real.floor, num_samples=self.num_samples)
        metrics = {f"{kind}/{name}": value for kind, value in found.items() if kind not in unread}
        metrics |= {f"samples/{kind}_withheld": found[kind] for kind in unread}
        metrics |= {f"{kind}/{name}_real": value for kind, value in real.floor.items()}
        if classes:
            shares = _shares(torch.cat(classes), datamodule.spec.num_classes or 0)
            metrics |= {f"samples/class_share_{k}": float(share) for k, share in enumerate(shares)}
            metrics |= {"samples/min_class_share": float(shares.min()), **real.judged}
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
        number, seed = self.num_samples, self.seed
        statistics = remember([*digests, number, seed, _VERSION], partial(_statistics, train, scored, number, seed))
        judge, judged = None, {}
        num_classes = datamodule.spec.num_classes or 0
        if num_classes > 1 and "y" in train and "y" in scored:
            judge = class_judge(datamodule, num_classes=num_classes, device=device)
        if judge is not None:
            judged = _judge_real(judge, datamodule, split, device, number, seed)
        return _Real(scored, statistics, judge, judged, number, seed)


class _Real:
    """Reference for samples: features of the scored split, statistics of both splits, and the judge of classes."""

    def __init__(
        self,
        scored: dict[str, Tensor],
        statistics: dict[str, Tensor],
        judge: ClassJudge | None,
        judged: dict[str, float],
        num_samples: int,
        seed: int,
    ) -> None:
        self.judge, self.judged = judge, judged
        self.x = scored["x"]
        self.gaussian = Gaussian(statistics["mean"], statistics["root"])
        self.subsets = draw_subsets(num_samples, len(self.x), seed=seed)
        self.kernel_within = float(statistics["kernel_within"])
        radii = {int(name.removeprefix("radii_")): value for name, value in statistics.items() if "radii_" in name}
        self.manifold = Manifold(wide(some_rows(self.x, num_samples, seed)), radii)
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


def withheld(found: Mapping[str, float], real: Mapping[str, float], *, num_samples: int) -> tuple[str, ...]:
    """Metrics of the support that would mislead: ``precision`` and ``density``, or none.

    A blurred image lies near the mean of many, so within more balls than a real image does; and a few images repeated are
    plausible, though they reach no other kinds. Real images have values of their own, which a perfect generator reaches: more
    is withheld, with a margin of 5 over the square root of the number of samples, beyond their noise.

    Args:
        found: Precision, recall, density and coverage of samples.
        real: The same of real images.
        num_samples: Number of samples.
    """
    margin = 1 + 5 / num_samples**0.5
    too_deep = any(found[kind] > margin * real[kind] for kind in PLAUSIBLE)
    alike = any(found[kind] == 0 < real[kind] for kind in ("recall", "coverage"))
    return PLAUSIBLE if too_deep or alike else ()


def _statistics(train: dict[str, Tensor], scored: dict[str, Tensor], num_samples: int, seed: int) -> dict[str, Tensor]:
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
    return {
        "mean": gaussian.mean,
        "root": gaussian.root,
        **{f"radii_{k}": radii for k, radii in manifold.radii.items()},
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()},
    }


def _judge_real(
    judge: ClassJudge, datamodule: DataModule, split: str, device: torch.device, num_samples: int, seed: int
) -> dict[str, float]:
    """Accuracy of the judge on the scored split, and the rarest class that it finds among train images."""
    scored, train = (
        _some_images(datamodule, part, device, num_samples, seed, labelled=labelled)
        for part, labelled in ((split, True), ("train", False))
    )
    right = judge.classify(scored["x"]) == scored["y"] if len(scored["x"]) else torch.tensor([torch.nan])
    shares = _shares(judge.classify(train["x"]), datamodule.spec.num_classes or 0)
    return {"samples/judge_top1": float(wide(right).mean()), "samples/min_class_share_real": float(shares.min())}


def _some_images(
    datamodule: DataModule, split: str, device: torch.device, number: int, seed: int, *, labelled: bool
) -> dict[str, Tensor]:
    columns = datamodule.columns(split)
    rows = torch.arange(len(columns["image"]))
    if labelled:  # -1 marks an unlabelled sample
        rows = (torch.as_tensor(columns["label"][rows.numpy()]) >= 0).nonzero()[:, 0]
    rows = some_rows(rows.cpu(), number, seed).sort().values
    found = {"x": columns["image"], **({"y": columns["label"]} if labelled else {})}
    return {name: torch.as_tensor(column[rows.numpy()]).to(device) for name, column in found.items()}


def _shares(classes: Tensor, num_classes: int) -> Tensor:
    return wide(torch.bincount(classes, minlength=num_classes)) / len(classes)


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
