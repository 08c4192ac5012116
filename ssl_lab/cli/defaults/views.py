"""Settings of two-view methods and masked autoencoders of images."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults import images
from ssl_lab.cli.defaults.facts import Choice, Facts
from ssl_lab.modalities.image import ImageSpec

_VIT = "ssl_lab.encoders.vit.ViT"
_MASKED = {"optim.lr": 0.002, "optim.weight_decay": 0.05, "optim.betas": "[0.9,0.95]"}  # as in mae_fashion_mnist
_SHORT = 10_000  # steps; published recipes of CIFAR take 80,000 and more


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Groups, networks, batch and length that suit the data."""
    if not isinstance(facts.spec, ImageSpec):
        return
    if "mask_ratio" in cfg.method:
        yield from _masked(facts, cfg)
    elif "views" in cfg.method:
        yield from _views(facts, cfg)
        yield from images.convnet(facts, cfg)
        yield from images.length(facts, cfg, images=36_000, batch_size=_batch_size(cfg.method))


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Settings that suit a run of so many steps."""
    if not images.on_cpu(facts) or num_steps > _SHORT:
        return
    reason = f"{num_steps:,} steps"
    if "mask_ratio" in cfg.method:
        settings = _MASKED
    elif "views" in cfg.method:
        settings = {**_heads(cfg), **_teacher(cfg, num_steps), **_negatives(facts, cfg, num_steps)}
        settings |= {**_clusters(cfg), **_rate(cfg)}
    else:
        return
    for name, value in settings.items():
        yield Choice(f"{name}={value}", reason)


def _batch_size(method: DictConfig) -> int:
    """Small batches, for more steps, where a predictor or teacher replaces negatives and prototypes.

    BYOL on 6,000 images of MNIST, 32,000 views, small network: kNN 69.7 in batches of 128, 76.3 in batches of 64. SimCLR on
    CIFAR-10: 31.8 in batches of 128, 29.4 in batches of 64.
    """
    contrasts = "temperature" in method or "num_prototypes" in method
    return 64 if not contrasts and ("momentum" in method or "predictor_hidden_dim" in method) else 128


def _views(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Views of grey images, which have no hue to change, of images that have a direction, and of short runs.

    SimCLR on MNIST: kNN 81.3 with colour photographs' views, 93.1 with those of digits. On 6,000 images of CIFAR-10, 200
    steps: kNN 31.8 and linear probe 38.0 with the strong views of long runs, 37.0 and 43.8 with milder ones.
    """
    views = cfg.method.views
    multi_crop = "num_local" in views
    group = "+views@method.views.global_views" if multi_crop else "views@method.views"
    directed = "images that have a direction"
    if facts.spec.shape[0] == 1:
        name, what = ("fashion", "grey images") if facts.mirrored else ("digits", f"grey {directed}")
        yield Choice(f"{group}={name}", what)
    else:
        short = images.on_cpu(facts)
        if short:
            yield Choice(f"{group}=vicreg", "mild views for the short runs of a CPU")
        if facts.mirrored is False:
            pairs = [path for path in _views_of(views, "method.views") if not (short and path.endswith(".second"))]
            for path in pairs:
                yield Choice(f"{path}.flip_prob=0", directed)
    if multi_crop and images.on_cpu(facts):
        yield Choice("method.views.num_local=0", "CPU")
    elif multi_crop and facts.spec.shape[0] == 1 and not facts.mirrored:
        yield Choice("method.views.local_view.flip_prob=0", directed)


def _views_of(settings: DictConfig, path: str) -> Iterator[str]:
    """Paths of the settings of single views."""
    if "flip_prob" in settings:
        yield path
    for name, part in ((str(key), below) for key, below in settings.items()):
        if isinstance(part, DictConfig):
            yield from _views_of(part, ".".join((path, str(name))))


def _masked(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """A transformer of 8 x 8 patches or so, and crops that keep what the images mean."""
    vit = cfg.encoder.get("_target_") == _VIT
    cpu = images.on_cpu(facts)
    if not vit:
        yield Choice(f"encoder={'vit_mae_mini' if cpu else 'vit_mae_tiny'}", "MAE encodes some of the patches")
    if (not vit or cpu) and (size := _patch_size(facts.spec.shape[1:])):
        yield Choice(f"encoder.patch_size={size}", f"{min(facts.spec.shape[1:])} pixels")
    if facts.spec.shape[0] == 1 and not facts.mirrored:
        yield Choice("views@method.crop=none", "grey images that have a direction")
    elif facts.mirrored is False and "flip_prob" in cfg.method.crop:
        yield Choice("method.crop.flip_prob=0", "images that have a direction")
    # 138 steps end below an untrained encoder on Fashion-MNIST, so that a run is longer than those of the other methods
    if cpu:  # as in mae_fashion_mnist, a fifth of the time of vit_mae_mini and a decoder of four blocks
        for setting in ("encoder.depth=4", "method.decoder_dim=64", "method.decoder_depth=1"):
            yield Choice(setting, "CPU")
        yield from images.length(facts, cfg, images=90_000, batch_size=128)


def _patch_size(sides: tuple[int, ...]) -> int | None:
    """The divisor of both sides that cuts the shorter one closest to eight parts; None if none cuts it into four or more.

    The encoder's own message then says what to do.
    """
    divisors = [d for d in range(2, min(sides) // 4 + 1) if all(side % d == 0 for side in sides)]
    return min(divisors, key=lambda d: abs(math.log(min(sides) / d / 8)), default=None)


def _heads(cfg: DictConfig) -> dict[str, object]:
    """Narrow heads: they cost less and fit in a short run.

    The predictor keeps up to 512 units: on 6,000 images of CIFAR-10 and six epochs, SimSiam with a quarter of its
    projections, as in the paper, ends below a random encoder (linear probe 24.1 and 32.1).
    """
    widest = {"hidden_dim": 512, "projection_dim": 256, "predictor_hidden_dim": 512}
    return {f"method.{name}": most for name, most in widest.items() if _above(cfg.method, name, most)}


def _teacher(cfg: DictConfig, num_steps: int) -> dict[str, object]:
    """A teacher that averages over ten steps at least, and a projector that cannot collapse.

    It averages over a hundredth of the run; one that fills a queue, whose keys must agree, over a hundred steps at least:
    MoCo v2 on 6,000 images of CIFAR-10, 138 steps: linear probe 25.2 with momentum 0.93, 38.9 with 0.99.

    BYOL on 6,000 images of MNIST, 250 steps, small network: with batch normalisation at the projector's end kNN 69.7 and
    linear probe 83.2 (momentum 0.9), without it 55.0 and 62.8 (momentum 0.99).
    """
    least = 0.99 if "queue_size" in cfg.method else 0.9
    momentum = round(max(least, 1 - 100 / num_steps), 4)
    names = [name for name in ("momentum", "final_momentum") if _above(cfg.method, name, momentum)]
    constant = len(names) == 2 and cfg.method.momentum == cfg.method.final_momentum
    chosen: dict[str, object] = {f"method.{name}": momentum for name in names if constant or name == "momentum"}
    if "momentum" in cfg.method and "last_norm" in cfg.method:
        chosen["method.last_norm"] = "true"
    return chosen


def _negatives(facts: Facts, cfg: DictConfig, num_steps: int) -> dict[str, object]:
    """A queue that a short run renews many times, and the temperature of CIFAR recipes.

    SimCLR on 6,000 images of CIFAR-10, 200 steps: kNN 37.0 and linear probe 43.8 at 0.5, 40.9 and 45.6 at 0.2.
    """
    method = cfg.method
    chosen: dict[str, object] = {}
    if "queue_size" in method:
        seen = num_steps * cfg.data.batch_size
        size = max(cfg.data.batch_size, 2 ** int(math.log2(max(1, min(facts.num_samples / 2, seen / 8)))))
        if method.queue_size > size:
            chosen["method.queue_size"] = size
    if "num_prototypes" not in method and "temperature" in method:
        chosen["method.temperature"] = 0.2
    return chosen


def _clusters(cfg: DictConfig) -> dict[str, object]:
    """Few prototypes with sharp targets.

    DINO on 6,000 images of MNIST, 250 steps: with 1,024 prototypes and momentum 0.95 its features end below a random
    encoder's, with 256 and 0.9 above.
    """
    method = cfg.method
    if "num_prototypes" not in method:
        return {}
    chosen: dict[str, object] = {"method.num_prototypes": 256} if "epsilon" in method else {}
    if "epsilon" in method:
        chosen["method.epsilon"] = 0.03
    if "teacher_temperature" in method:
        chosen |= {"method.num_prototypes": 256, "method.teacher_temperature": 0.04}
    if "hidden_norm" in method:
        chosen["method.hidden_norm"] = "true"
    return chosen


def _rate(cfg: DictConfig) -> dict[str, object]:
    """AdamW's rate of short runs of small networks."""
    if cfg.optim.get("_target_") == "ssl_lab.optim.AdamW":
        return {"optim.lr": 0.002}
    return {}


def _above(settings: DictConfig, name: str, limit: float) -> bool:
    value = settings.get(name)
    return value is not None and value > limit
