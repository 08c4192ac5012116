"""The samples that settings of a command name; light, as refusals come before anything slow is imported."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lab.limited import printable

if TYPE_CHECKING:
    from ssl_lab.data.base import DataModule
    from ssl_lab.predict.inputs import Given

TEXTS = ("text", "second_text", "question")
_NAMED = 3


def has_inputs(cfg: DictConfig) -> bool:
    """Return whether the settings name any inputs."""
    return cfg.input is not None or any(cfg.get(name) is not None for name in TEXTS)


def check_inputs(cfg: DictConfig, *, setting: str = "input") -> None:
    """Refuse settings that name inputs twice, or some that are not there; ``setting`` is what the command calls ``input``."""
    texts = [name for name in TEXTS if cfg.get(name) is not None]
    if cfg.input is not None and texts:
        raise ValueError(f"Both {setting}= and {texts[0]}= were given. Give files, or one text.")
    if cfg.columns is not None and cfg.input is None:
        raise ValueError(
            f"columns= names the columns of tables, but no table is given. Leave it out, or give {setting}=FILE."
        )
    for place in places(cfg):
        if not place.exists():
            raise FileNotFoundError(
                f"Cannot read {setting}={place}: no such file or folder (working directory: {Path.cwd()}). Correct the path."
            )


def places(cfg: DictConfig) -> list[Path]:
    """The files and folders of ``input=``."""
    given = cfg.input if isinstance(cfg.input, ListConfig) else [cfg.input]
    return [Path(str(place)) for place in given if place is not None]


def refuse_input(out: Path, inputs: list[Path]) -> None:
    """Refuse an output that would overwrite the input."""
    if any(place.resolve() == out.resolve() for place in inputs):
        raise ValueError(f"Cannot write out={out}: it is the input. Give out= another name.")


def given_to(
    cfg: DictConfig, datamodule: DataModule, *, fields: Mapping[str, str] | None = None, setting: str = "input"
) -> list[Given]:
    """The samples that the settings name; files of other kinds are counted and named.

    Args:
        cfg: Settings.
        datamodule: Data like that of the run.
        fields: The parts of a sample that are needed; None for all.
        setting: What the command calls ``input``.
    """
    from ssl_lab.predict.inputs import from_files, from_texts

    texts = {name: cfg[name] for name in TEXTS if cfg.get(name) is not None}
    if texts:
        return from_texts(texts, datamodule, fields=fields)
    columns = None if cfg.columns is None else OmegaConf.to_container(cfg.columns)
    given, left_out = from_files(places(cfg), datamodule, columns, fields=fields, setting=setting)  # type: ignore[arg-type]
    tell_left_out(left_out)
    if not given:
        raise ValueError(
            f"Cannot read {setting}={cfg.input}: there is nothing in it. Give a file with at least one row."
        )
    return given


def tell_left_out(files: list[Path]) -> None:
    """Count and name files of other kinds."""
    if files:
        names = ", ".join(str(file) for file in files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
        print(printable(f"Files of other kinds that are left out: {len(files):,} ({names})."))


def tell_unread(unreadable: list[Given], datamodule: DataModule) -> None:
    """Count and name the samples that are left out."""
    from ssl_lab.predict.inputs import named, unread

    if unreadable:
        message = f"Inputs that are left out, as {unread(datamodule)}: {len(unreadable):,} ({named(unreadable)})."
        warnings.warn(printable(message), stacklevel=2)
