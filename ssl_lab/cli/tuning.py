"""Settings of a fine-tuning that nobody gave, by its encoder and data."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from ssl_lab.cli.build import build_encoder
from ssl_lab.cli.defaults.facts import Choice, device_type, listed
from ssl_lab.cli.defaults.finetuning import TuningFacts, batch_size, num_epochs, rate_of
from ssl_lab.cli.instantiate import class_of
from ssl_lab.data.base import DataModule
from ssl_lab.types import Encoder, Spec

AUTO = "auto"
"""Value of ``optim.lr`` that asks for a search."""
_OF_LENGTH = ("max_epochs", "max_steps", "limit_train_batches", "max_time", "accumulate_grad_batches")


def suit(
    cfg: DictConfig,
    args: Sequence[str],
    datamodule: DataModule,
    spec: Spec,
    encoder: Encoder | None,
    *,
    published: bool,
) -> list[Choice]:
    """Choose learning rate, batch and epochs that the command does not give, and put them into configuration and data.

    On a GPU batch and epochs stay as they are: both were measured on CPUs alone.

    Args:
        cfg: The configuration, which is changed.
        args: Arguments of the command; what they give stays.
        datamodule: The data, whose batch is changed.
        spec: Facts that the encoder is built from.
        encoder: The encoder; None to build it where it is needed.
        published: Whether its weights are published ones.

    Returns:
        The choices that were made.
    """
    given = {one.partition("=")[0].lstrip("+~") for one in args}
    made: list[Choice] = []
    asks = cfg.optim.get("lr") == AUTO
    if asks:
        cfg.optim.lr = getattr(class_of(cfg.optim), "lr", 1e-3)
    if not given & {"optim", "optim._target_"} and ("optim.lr" not in given or asks):
        facts = _facts(cfg, spec, encoder or build_encoder(cfg.encoder, spec), published=published)
        made += rate_of(facts)
    if device_type(str(cfg.trainer.accelerator)) == "cpu":
        num_samples = len(next(iter(datamodule.columns("train").values())))
        reason = f"{num_samples:,} training samples on a CPU"
        batch = int(datamodule.batch_size)
        if "data.batch_size" not in given and "batch_size" in cfg.data:
            batch = batch_size(num_samples)
            made.append(Choice(f"data.batch_size={batch}", reason))
        if not {f"trainer.{name}" for name in _OF_LENGTH} & given and cfg.trainer.max_steps in (None, -1):
            made.append(Choice(f"trainer.max_epochs={num_epochs(num_samples, batch)}", reason))
        datamodule.batch_size = batch
    cfg.merge_with_dotlist([each.override for each in made])
    return made


def told(choices: Sequence[Choice]) -> str:
    """The choices and their reasons on one line; empty if there are none."""
    return f"Chosen: {listed(choices)}. Set any of these yourself." if choices else ""


def _facts(cfg: DictConfig, spec: Spec, encoder: Encoder, *, published: bool) -> TuningFacts:
    return TuningFacts(
        modality=spec.modality,
        title=encoder.title,
        width=encoder.embed_dim,
        published=published,
        adapters=cfg.lora.rank is not None,
        frozen=cfg.method.get("freeze") == "encoder",
    )
