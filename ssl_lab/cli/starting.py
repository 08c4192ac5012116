"""Where the weights of an encoder come from before training: settings that every encoder has beside its own.

``encoder.from_run=DIR`` takes the encoder of another run, ``encoder.weights=`` a file, a folder or a name, and
``encoder.normalise_by=`` says by which statistics pixels are normalised. A run keeps the weights it began with in
:data:`ssl_lab.runs.directory.START_WEIGHTS`, so that nothing else of theirs is needed again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from ssl_lab.cli.arguments import literal
from ssl_lab.cli.build import OF_START, build_encoder, encoder_in_run, load_run, read_setup
from ssl_lab.cli.data_of_run import check_readable, settings_in_run
from ssl_lab.cli.instantiate import check_value
from ssl_lab.cli.trust.targets import read_settings
from ssl_lab.encoders.fitting import fit
from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.encoders.lora import merge_adapters, without_adapters
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.engine.logging.text_log import LOG
from ssl_lab.limited import load_json
from ssl_lab.runs.directory import SPEC, START_WEIGHTS
from ssl_lab.tensors import read_tensors
from ssl_lab.types import Encoder, Published, Spec

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel, by which most published networks normalise."""
_STATISTICS = ("data", "imagenet")
_LOOKS_LIKE_FILE = re.compile(r"[/\\~]|\.(pt|pth|bin|ckpt|safetensors|tar)$")


@dataclass(frozen=True)
class Start:
    """Initial weights of an encoder. This one: as its class makes them."""

    def spec(self, found: Spec) -> Spec:
        """Return the facts that the encoder is built from, for data with the facts ``found``."""
        return found

    def load(self, encoder: Encoder) -> None:
        """Give the encoder its first weights."""
        if encoder.pretrained and isinstance(encoder, ImageEncoder) and encoder.statistics is not None:
            encoder.normalise_by(*encoder.statistics)


@dataclass(frozen=True)
class FromRun(Start):
    """With the encoder of another run: the one that the run's evaluation judged, with averaged weights where it has them.

    Attributes:
        run_dir: The run directory.
    """

    run_dir: Path

    def spec(self, found: Spec) -> Spec:
        """The facts of the run, with what there is to learn in the data.

        Raises:
            ValueError: If the run's encoder does not read the data.
        """
        of_run = read_setup(self.run_dir)[1]
        check_readable(of_run, found)
        return replace(of_run, targets=found.targets)

    def load(self, encoder: Encoder) -> None:
        """All weights of the run's encoder."""
        source = merge_adapters(load_run(self.run_dir)[2].feature_encoder)
        weights = source.state_dict()
        encoder.load_state_dict(weights)
        encoder.pretrained = True
        _tell(f"all {len(weights)} tensors of the encoder from {self.run_dir}")


@dataclass(frozen=True)
class FromWeights(Start):
    """With weights of a file or folder, or that a name stands for.

    Attributes:
        weights: Path or name.
        normalise_by: ``data``, ``imagenet``, or None for the weights' own statistics where they are known.
    """

    weights: str
    normalise_by: str | None

    def load(self, encoder: Encoder) -> None:
        """Load the weights that fit; print one line about them, and name all of them in ``run.log``."""
        path = Path(self.weights)
        is_file = path.exists() or _LOOKS_LIKE_FILE.search(self.weights) is not None
        published = Published(tensors=read_tensors(path)) if is_file else encoder.published(self.weights)
        fitted = fit(encoder, published.tensors, self.weights)
        encoder.pretrained = True
        LOG.info(fitted.whole)
        _tell(f"{fitted.line}{self._normalise(encoder, published, path if is_file else None)}")

    def _normalise(self, encoder: Encoder, published: Published, path: Path | None) -> str:
        """Choose the statistics of pixels; in words, where there is a choice."""
        if not isinstance(encoder, ImageEncoder):
            if self.normalise_by is not None:
                raise ValueError(
                    f"encoder.normalise_by={self.normalise_by} has no effect: {encoder.title} reads no images. Leave it out."
                )
            return ""
        if self.normalise_by == "imagenet":
            encoder.normalise_by(*IMAGENET)
        elif self.normalise_by is None and published.mean:
            encoder.normalise_by(published.mean, published.std)
            return "; pixels are normalised as the weights ask for"
        elif self.normalise_by is None and path is not None and (found := _statistics_beside(path)) is not None:
            mean, std, file = found
            encoder.normalise_by(mean, std)
            return f"; pixels are normalised as the weights ask for, by {file}"
        elif self.normalise_by is None:
            return "; pixels are normalised by the data's statistics (encoder.normalise_by=imagenet for ImageNet's)"
        return ""


@dataclass(frozen=True)
class Kept(Start):
    """As a run began that is resumed or judged again: with the facts and weights that it has kept.

    Attributes:
        run_dir: The run directory.
        with_weights: Whether the weights are needed: as a yardstick, for a checkpoint replaces them.
    """

    run_dir: Path
    with_weights: bool = True

    def spec(self, found: Spec) -> Spec:
        """The facts that the run's encoder was built from."""
        return read_setup(self.run_dir)[1]

    def load(self, encoder: Encoder) -> None:
        """The weights that the run began with.

        Raises:
            FileNotFoundError: If they are not there.
        """
        encoder.pretrained = True
        path = self.run_dir / START_WEIGHTS
        if not self.with_weights:
            return
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path}, the weights that the run began with and that its result is judged beside. Restore the "
                "file, or set baselines=false."
            )
        encoder.load_state_dict(read_tensors(path))


def settle(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Complete the settings with what the start weights imply: the run's encoder, a tokenizer.

    Args:
        cfg: The configuration, which is changed.
        run_dir: Where the run lies or will lie; one that exists has settled already.
        overrides: What was asked for.

    Raises:
        FileNotFoundError: If ``encoder.from_run`` is no run.
        ValueError: If settings contradict each other.
    """
    node = cfg.encoder
    given = {name: node.get(name) for name in OF_START if node.get(name) is not None}
    published = node.get("pretrained")
    if "from_run" in given and ("weights" in given or published):
        other = "weights" if "weights" in given else "pretrained"
        raise ValueError(f"Cannot start from encoder.from_run and encoder.{other} at once. Leave one of them out.")
    if "weights" in given and published:
        raise ValueError("Cannot start from encoder.weights and encoder.pretrained at once. Leave one of them out.")
    if (by := given.get("normalise_by")) is not None:
        if by not in _STATISTICS:
            raise ValueError(f"Cannot use encoder.normalise_by={by}. Choose from {', '.join(_STATISTICS)}, or null.")
        if "weights" not in given:
            raise ValueError(f"encoder.normalise_by={by} has no effect without encoder.weights. Leave it out.")
    check_adapters(cfg, pretrained=is_started(cfg))
    if "from_run" in given:
        _take_over_encoder(cfg, Path(given["from_run"]), run_dir, overrides)
    elif isinstance(published, str) and cfg.data.get("tokenizer", "") is None:
        cfg.data.tokenizer = literal(published)


def check_adapters(cfg: DictConfig, *, pretrained: bool) -> None:
    """Refuse adapters that would stand beside random weights, and settings of adapters where there are none.

    Args:
        cfg: The configuration.
        pretrained: Whether the encoder begins with weights of a file, a run or a published model.

    Raises:
        ValueError: Naming the setting.
    """
    hints = {"rank": int | None, "alpha": float | None, "dropout": float, "layers": list[str] | None}
    for name, hint in hints.items():
        check_value(f"lora.{name}", cfg.lora[name], hint)
    given = [name for name in ("alpha", "layers") if cfg.lora[name] is not None] + ["dropout"] * bool(cfg.lora.dropout)
    if cfg.lora.rank is None and given:
        raise ValueError(f"lora.{given[0]} has no effect without lora.rank. Set lora.rank=8, or leave it out.")
    if cfg.lora.rank is not None and not pretrained:
        raise ValueError(
            f"Cannot put adapters (lora.rank={cfg.lora.rank}) beside random weights, which would stay random. Give "
            "encoder.from_run=DIR, encoder.weights=FILE or encoder.pretrained=, or leave lora.rank out."
        )


def first_weights(encoder: Encoder) -> dict[str, Tensor]:
    """A copy of an encoder's weights before training."""
    return {name: each.clone() for name, each in without_adapters(encoder).state_dict().items()}


def start_of(cfg: DictConfig, run_dir: Path | None = None, *, resumed: bool = False) -> Start:
    """Return the initial weights of the encoder of these settings.

    Args:
        cfg: Settings that :func:`settle` has completed.
        run_dir: The run directory.
        resumed: Whether a checkpoint brings the weights.
    """
    node = cfg.encoder
    if resumed and run_dir is not None and is_started(cfg) and (run_dir / SPEC).is_file():
        if _comes_from_elsewhere(cfg) or (run_dir / START_WEIGHTS).is_file():
            return Kept(run_dir, with_weights=bool(cfg.get("baselines", True)))
    if node.get("from_run") is not None:
        return FromRun(Path(node.from_run))
    if node.get("weights") is not None:
        return FromWeights(node.weights, node.get("normalise_by"))
    return Start()


def is_started(cfg: DictConfig) -> bool:
    """Return whether the encoder starts from weights that its run keeps."""
    return _comes_from_elsewhere(cfg) or bool(cfg.encoder.get("pretrained"))


def _comes_from_elsewhere(cfg: DictConfig) -> bool:
    return any(cfg.encoder.get(name) is not None for name in ("from_run", "weights"))


def initial_encoder(cfg: DictConfig, spec: Spec, run_dir: Path) -> Encoder:
    """The encoder of a run as it was before training."""
    if not _comes_from_elsewhere(cfg) and not (run_dir / START_WEIGHTS).is_file():
        return build_encoder(cfg.encoder, spec)
    encoder = build_encoder(cfg.encoder, spec, run_dir=run_dir)
    Kept(run_dir).load(encoder)
    return encoder


def _take_over_encoder(cfg: DictConfig, source: Path, run_dir: Path, overrides: Sequence[str]) -> None:
    """Copy a run's encoder and its data settings into the configuration; settings given by name stay."""
    keys = [one.partition("=")[0].lstrip("+~") for one in overrides]
    asked = {key.removeprefix("encoder."): OmegaConf.select(cfg, key) for key in keys if key.startswith("encoder.")}
    own = run_dir / "config.yaml"
    before = read_settings(own, to_build=True) if own.is_file() else None
    if before is not None and OmegaConf.select(before, "encoder.from_run") == str(source):
        node, of_data = before.encoder, {name: before.data[name] for name in ("tokenizer",) if name in before.data}
    else:
        run_cfg, spec = read_setup(source)
        run_cfg.encoder.update(encoder_in_run(run_cfg.encoder, source))
        node, of_data = run_cfg.encoder, settings_in_run(cfg.data, source, spec, None)
        if "encoder" in keys and node._target_ != cfg.encoder._target_:
            chosen = next(one for one in overrides if one.startswith("encoder="))
            raise ValueError(
                f"Cannot start {chosen} from {source}: that run's encoder is a {node._target_.rpartition('.')[2]}. Leave "
                "encoder= out to take it."
            )
    with open_dict(cfg):
        cfg.encoder = {**node, **dict.fromkeys(OF_START), "from_run": literal(str(source))}
        for name, value in asked.items():
            OmegaConf.update(cfg.encoder, name, value, force_add=True)
        cfg.data.update(of_data)


def _statistics_beside(path: Path) -> tuple[list[float], list[float], Path] | None:
    """Mean and standard deviation found beside a file or folder of weights, and the file that states them.

    Raises:
        ValueError: If a file says what cannot be.
    """
    folder = path if path.is_dir() else path.parent
    for name, inside in (("preprocessor_config.json", None), ("config.json", "pretrained_cfg")):
        file = folder / name
        if not file.is_file():
            continue
        facts = load_json(file)
        facts = facts.get(inside) if inside else facts
        if not isinstance(facts, dict):
            continue
        mean: Any = facts.get("mean", facts.get("image_mean"))
        std: Any = facts.get("std", facts.get("image_std"))
        if mean is None and std is None:
            continue
        if not (_are_shares(mean) and _are_shares(std) and len(mean) == len(std) and min(std) > 0):
            raise ValueError(
                f"Cannot normalise pixels by {file}: found mean {mean} and standard deviation {std}. Each needs a number "
                "from 0 to 1 for each channel, the latter above 0. Correct the file, or set encoder.normalise_by=data or "
                "imagenet."
            )
        return mean, std, file
    return None


def _are_shares(values: Any) -> bool:
    numbers = isinstance(values, list) and all(type(each) in (int, float) for each in values)
    return numbers and len(values) > 0 and all(0 <= each <= 1 for each in values)


def _tell(words: str) -> None:
    LOG.info("Start: %s", words)
    if is_first_rank():
        print(f"Start: {words}.", flush=True)
