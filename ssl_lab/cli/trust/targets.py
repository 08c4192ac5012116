"""Classes and functions that a configuration may name.

A configuration names what is built by ``_target_``: anything that Python can import, with any arguments. Files of a run
directory and settings that people pass around are data, so what they name must stand on a closed list: the targets of the
package's own ``conf/`` and few others. A class of one's own is allowed by the command that uses it: by its name
(``method=NAME``, or ``..._target_=...`` typed on the command line), or by ``trust=true`` for all that is read.
Everything is checked before anything is imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.trust.own_code import is_known, provide
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.limited import load_yaml
from ssl_lab.runs.moved import renamed

_TARGET = re.compile(r"_target_:\s*([\w.]+)")
_ALSO = (
    "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.csv_logs.CSVLogger",
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger",
    "ssl_lab.evaluation.on_data.OnData",
    "ssl_lab.pretext.binarize.Binarize",
    "ssl_lab.pretext.patch_masking.PatchMasking",
    "ssl_lab.pretext.span_corruption.SpanCorruption",
)
"""Allowed beside the targets of ``conf/``; none of them runs what its arguments name."""
NOT_NAMING = ("experiment", "sweep", "local", "hydra")
"""Groups whose choice does not name a class of one's own: their files are passed around."""


@dataclass
class Trust(metaclass=Singleton):
    """Imports allowed beside the closed list; it travels to the workers of a sweep with Hydra's other state.

    Attributes:
        everything: ``trust=true``: any target.
        targets: Targets that the command line itself names.
        files: Settings in the own folder that the command line chooses, such as ``method/mine``.
        used: Files of the own folder that were read or imported.
        printed: Those of them that were printed.
    """

    everything: bool = False
    targets: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)
    printed: set[str] = field(default_factory=set)


@cache
def closed_list() -> frozenset[str]:
    """All targets that any configuration may name."""
    targets = set(_ALSO)
    for path in config_dir().rglob("*.yaml"):
        if path.relative_to(config_dir()).parts[0] != "local":
            targets |= set(_TARGET.findall(path.read_text(encoding="utf-8")))
    return frozenset(target for target in targets if not target.startswith("hydra_plugins."))


@contextmanager
def trusting(args: Sequence[str] = (), *, everything: bool = False) -> Iterator[Trust]:
    """Allow the classes that a command line names, while the block runs.

    Args:
        args: The command's arguments.
        everything: Allow any target.
    """
    trust = Trust.instance()
    before = dict(vars(trust))
    targets, files = _named_by(args)
    vars(trust).update(everything=everything, targets=targets, files=files, used=[], printed=set())
    try:
        yield trust
    finally:
        vars(trust).update(before)


def split_off_trust(args: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``trust=``, and whether it was true.

    Raises:
        ValueError: If it is neither true nor false.
    """
    given = [arg.partition("=")[2].lower() for arg in args if arg.startswith("trust=")]
    if any(value not in ("true", "false") for value in given):
        raise ValueError(
            f"Cannot read trust={given[-1]}. Choose true, to run the classes that a run or experiment names, or false."
        )
    return [arg for arg in args if not arg.startswith("trust=")], given[-1:] == ["true"]


def read_settings(path: Path, *, to_build: bool = True) -> DictConfig:
    """The settings that a run has left, as data: within limits, and nothing in them is an interpolation.

    Args:
        path: The file.
        to_build: Whether objects are built of them, so that they may name allowed classes alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, holds an interpolation, or names what could run code.
    """
    settings = renamed(load_yaml(path, within=path.parent))
    for text in texts(settings):
        if any(len(slashes) % 2 == 0 for slashes in re.findall(r"(\\*)\$\{", text)):
            raise ValueError(
                f"{path} cannot be read: {text[:100]!r} refers to something else, which the settings of a run never do. "
                "Restore the file, or write the value itself."
            )
    if to_build:
        check_targets(settings, str(path), data=True)
        tell_used()
    return OmegaConf.create(settings)


def texts(node: Any) -> Iterator[str]:
    """All keys and values below plain values that are text."""
    if isinstance(node, dict):
        node = [*node, *node.values()]
    if isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def check_targets(node: Any, source: str, *, data: bool = False) -> None:
    """Refuse a configuration if any of its nodes names a target that is not allowed. Imports nothing.

    Args:
        node: Plain values, or a node of a configuration, whose interpolations are followed.
        source: Where it comes from, for the message.
        data: Whether it is read as data, where positional arguments have no place.

    Raises:
        ValueError: Naming the first such target.
    """
    for key, value in _targets(node, node._get_full_key(None) if OmegaConf.is_config(node) else ""):
        if key.rpartition(".")[2] == "_args_":
            if data and not Trust.instance().everything:
                raise ValueError(f"{source}: {key} has no meaning in settings. Name the arguments.")
        else:
            _check_target(value, key, source)


def _check_target(target: object, key: str, source: str) -> None:
    trust = Trust.instance()
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        raise ValueError(f"{source}: {key} should be the dotted name of a class, found {str(target)[:100]}.")
    if target in closed_list():
        return
    if trust.everything or target in trust.targets:
        for file in provide(target):
            use(file)
        return
    raise ValueError(
        f"{source}: {key} names {target}, which is not a class that ssl_lab may build from settings on its own. Nothing was "
        f"imported. {_remedy(key, target)}"
    )


def _remedy(key: str, target: str) -> str:
    module = target.partition(".")[0]
    if not is_known(module):
        return f"There is no module {module!r} either: start the command in the folder that holds {module}.py, or install it."
    group = key.partition(".")[0]
    named = f"name it on the command line ({group}=NAME), or " if (Path.cwd() / "conf" / group).is_dir() else ""
    return f"If you know the code of {module} and what is asked of it, {named}add trust=true."


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of ``_target_`` and ``_args_`` below a node, each with its key."""
    if isinstance(node, ListConfig | list):
        for place in range(len(node)):
            if not (isinstance(node, ListConfig) and (node._is_none() or OmegaConf.is_missing(node, place))):
                yield from _targets(node[place], f"{prefix}[{place}]")
    if isinstance(node, DictConfig) and (node._is_none() or node._is_missing()):
        return
    if isinstance(node, DictConfig | dict):
        for name in node:
            if isinstance(node, DictConfig) and OmegaConf.is_missing(node, name):
                continue
            key = f"{prefix}.{name!s}" if prefix else str(name)
            if name in ("_target_", "_args_"):
                yield key, node[name]
            yield from _targets(node[name], key)


def use(file: str) -> None:
    """Note that a file of the own folder is used."""
    used = Trust.instance().used
    if file not in used:
        used.append(file)


def tell_used() -> None:
    """Report in one line which files of the current folder are used, once for each."""
    trust = Trust.instance()
    new = [file for file in trust.used if file not in trust.printed]
    trust.printed.update(new)
    if new and is_first_rank():
        print(f"ssl-lab: uses of this folder: {', '.join(new)}", file=sys.stderr)


def _named_by(args: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the names in arguments: targets, and files of the own folder."""
    targets: set[str] = set()
    files: set[str] = set()
    for override in _overrides(args):
        key = override.key_or_group
        values = list(_values(override))
        if key.rpartition(".")[2] == "_target_":
            targets |= {value for value in values if isinstance(value, str)}
        for value in values:
            targets |= {target for _, target in _targets(value) if isinstance(target, str)}
        if "." in key or key.partition("/")[0] in NOT_NAMING:
            continue
        names = [name for value in values for name in (value if isinstance(value, list) else [value])]
        files |= {f"{key}/{name}" for name in names if isinstance(name, str)}
    return targets, files


def _overrides(args: Sequence[str]) -> Iterator[Override]:
    parser = OverridesParser.create()
    for arg in args:
        if "=" in arg and not arg.startswith("-"):
            try:
                yield parser.parse_override(arg)
            except HydraException:  # a path or text, which is read as it is written; others are refused by Hydra itself
                continue


def _values(override: Override) -> Iterator[Any]:
    """The value of an override, or each that a sweep tries."""
    value = override._value
    for one in value.list if isinstance(value, ChoiceSweep) else [value]:
        yield Override._convert_value(one.text if isinstance(one, QuotedString) else one)  # type: ignore[arg-type]


def check_choices(args: Sequence[str]) -> None:
    """Refuse arguments that take settings from outside the folders of groups.

    Raises:
        ValueError: Naming the argument.
    """
    for override in _overrides(args):
        key = override.key_or_group
        if key == "hydra.searchpath":
            raise ValueError("hydra.searchpath= is not taken: files in it could run code. Put them below ./conf.")
        is_group = (config_dir() / key).is_dir() or (Path.cwd() / "conf" / key).is_dir()
        names = [name for value in _values(override) for name in (value if isinstance(value, list) else [value])]
        if is_group and any(isinstance(name, str) and (".." in name or name.startswith("/")) for name in names):
            raise ValueError(
                f"{override.input_line} leads out of conf/{key}. Put the file there, and give its name alone."
            )


def check_saved_overrides(overrides: Sequence[Any], source: str, *, replaced: Collection[str] = ()) -> None:
    """Refuse saved overrides that are not settings of a run or that read variables of the machine.

    Args:
        overrides: The arguments.
        source: Where they come from, for the message.
        replaced: Keys that the command gives anew.

    Raises:
        ValueError: Naming the first one.
    """
    for text in overrides:
        words = [text] if not isinstance(text, str) else re.split(r"[@.:/=]", text.partition("=")[0].lstrip("+~"))
        if not isinstance(text, str) or text.startswith("-") or "hydra" in words or "trust" in words:
            raise ValueError(
                f"{source} holds {str(text)[:100]!r}, which is not a setting of a run. Restore the file, or start a new run."
            )
        key = text.partition("=")[0].lstrip("+~")
        plain = re.sub(r"\$\{\s*[\w.@\[\]/-]+\s*\}", "", text)  # another setting of the run
        if "${" in plain and key not in replaced and not Trust.instance().everything:
            raise ValueError(
                f"{source} holds {text[:100]!r}, which would read something of this machine into the run. Give {key}= in the "
                "command, or add trust=true if you know the file."
            )
    check_choices(overrides)
