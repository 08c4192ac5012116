"""Choose the settings that nobody gave by the facts of the data and the machine.

The tables beside this module say what suits which facts. Their choices are overrides of Hydra that come before those of the
command, so that each setting given there wins; the configuration is composed again with them. A run keeps its choices in
``chosen.yaml`` and resumes with them, on whatever machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_lab.cli.build import OF_START, build_data
from ssl_lab.cli.defaults import cadence, generative, labels, text, views
from ssl_lab.cli.defaults.facts import Choice, Facts, facts_of, listed
from ssl_lab.cli.paths import config_dir, own_config_dir
from ssl_lab.cli.trust.targets import check_saved_overrides
from ssl_lab.data.base import DataModule
from ssl_lab.files import write_atomically
from ssl_lab.limited import load_yaml

CHOSEN = "chosen.yaml"
"""File of a run with its choices."""
_TABLES = (views, generative, text, labels, cadence)
_OF_LOADER = ("batch_size", "eval_batch_size")
"""Settings of data that say how they are read, not what."""

_CHOSEN_FOR = ("method", "data")

Compose = Callable[[Sequence[str]], DictConfig]
"""The configuration with these overrides before those of the command."""


@dataclass(frozen=True)
class Adapted:
    """Settings that suit their data.

    Attributes:
        cfg: The configuration.
        datamodule: Its data.
        facts: Facts of the data; None where nothing may be chosen, or was chosen when the run began.
        choices: What was chosen.
    """

    cfg: DictConfig
    datamodule: DataModule
    facts: Facts | None = None
    choices: tuple[Choice, ...] = ()

    def line(self) -> str:
        """The choices and their reasons on one line; empty if there are none, or if the run has told them before."""
        if not self.choices or self.facts is None:
            return ""
        return (
            f"Chosen for {self.facts}: {listed(self.choices)}. Set any of these yourself, or adapt_to_data=false for the "
            "values of conf/."
        )


def adapt(compose: Compose, *, overrides: Sequence[str], choices: Mapping[str, Any]) -> Adapted:
    """Choose the settings that neither the command nor a file of the user's gives.

    With an experiment, which is a complete set of settings, or with ``adapt_to_data=false``, nothing is chosen.

    Args:
        compose: Composes the configuration.
        overrides: The overrides of the command.
        choices: What is chosen in each group of the configuration.
    """
    cfg = compose([])
    datamodule = build_data(cfg.data, seed=cfg.seed)
    if not cfg.adapt_to_data or choices.get("experiment"):
        return Adapted(cfg, datamodule)
    facts = facts_of(datamodule, accelerator=cfg.trainer.accelerator)
    given = dict(_given(overrides))
    given |= dict.fromkeys([*_in_own_files(choices), *_in_named_files(given)], "")
    chosen: list[Choice] = []
    for stage in ("of_data", "of_length"):
        num_steps = {} if stage == "of_data" else {"num_steps": steps_of(cfg, facts)}
        found = (each for table in _TABLES for each in getattr(table, stage)(facts, cfg, **num_steps))
        if new := list(_free(found, given, cfg, chosen)):
            chosen += new
            before = cfg
            if any(_is_group(each.key, "") for each in new):
                cfg = compose([each.override for each in chosen])
            else:
                cfg = _with_values(cfg, new)
            if _reads_otherwise(before, cfg):
                datamodule = build_data(cfg.data, seed=cfg.seed)
                facts = facts_of(datamodule, accelerator=cfg.trainer.accelerator)
    for name in _OF_LOADER:
        if name in cfg.data:
            setattr(datamodule, name, cfg.data[name])
    return Adapted(cfg, datamodule, facts, tuple(chosen))


def _with_values(cfg: DictConfig, choices: Sequence[Choice]) -> DictConfig:
    """The configuration with these values, as composing it again would make it, which takes a fifth of a second."""
    found = cfg.copy()
    for each in OverridesParser.create().parse_overrides([choice.override for choice in choices]):
        OmegaConf.update(found, each.key_or_group, each.value())
    return found


def _reads_otherwise(before: DictConfig, now: DictConfig) -> bool:
    """Return whether the data of two configurations differ in more than the size of batches."""
    one, other = ({name: value for name, value in cfg.data.items() if name not in _OF_LOADER} for cfg in (before, now))
    return one != other


def steps_of(cfg: DictConfig, facts: Facts) -> int:
    """Optimizer steps of a run on one device; at least 1."""
    trainer = cfg.trainer
    devices = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else 1
    per_epoch = max(1, facts.num_samples // (cfg.data.batch_size * devices * trainer.accumulate_grad_batches))
    limits = [per_epoch * trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 0, trainer.max_steps]
    return min((limit for limit in limits if limit > 0), default=per_epoch)


def _free(
    found: Iterable[Choice], given: Mapping[str, str], cfg: DictConfig, made: Sequence[Choice]
) -> Iterator[Choice]:
    """Choices of settings that nobody gave; the first of several for one setting."""
    known = {each.key for each in made}
    refused: list[str] = []  # packages for which another choice holds, so that settings of the one refused do not fit
    is_started = any(cfg.encoder.get(name) is not None for name in OF_START) or bool(cfg.encoder.get("pretrained"))
    for choice in found:
        key = choice.key
        if key in known or key.startswith(tuple(refused)):
            continue
        if _is_given(choice, given, cfg):
            if _is_group(key, ""):
                refused.append(f"{key.rpartition('@')[2]}.")
            continue
        if key == "trainer.max_epochs" and "trainer.max_steps" in given:
            continue  # the length is given
        if is_started and key.partition(".")[0] == "encoder":
            continue  # the weights come from a network with settings of its own
        known.add(key)
        yield choice


def _is_given(choice: Choice, given: Mapping[str, str], cfg: DictConfig) -> bool:
    key, package = choice.key, choice.key.rpartition("@")[2]
    if key in given or package in {one.rpartition("@")[2] for one in given}:
        return True
    if any(package.startswith(f"{one}.") and not _is_group(one, value) for one, value in given.items()):
        return True
    below = any(one.startswith(f"{package}.") for one in given)
    return below and not (_is_group(key, "") and _target(choice) == OmegaConf.select(cfg, f"{package}._target_"))


def _is_group(key: str, value: str) -> bool:
    """Return whether a key of overrides is a group of which a file is chosen, rather than a mapping of settings."""
    return (config_dir() / key.partition("@")[0]).is_dir() and not value.startswith("{")


def _target(choice: Choice) -> Any:
    """The class that the file of a group names; None if it is none of the package's."""
    group, name = choice.key, choice.override.partition("=")[2]
    path = config_dir() / group.partition("@")[0] / f"{name}.yaml"
    return load_yaml(path).get("_target_") if path.is_file() else None


def _given(overrides: Iterable[str]) -> Iterator[tuple[str, str]]:
    for each in overrides:
        key, _, value = each.partition("=")
        yield key.lstrip("+~"), value


def _in_own_files(choices: Mapping[str, Any]) -> Iterator[str]:
    """Settings in files of the user's own ``conf/`` folder."""
    own = own_config_dir()
    for group, choice in choices.items() if own is not None else ():
        name, _, package = group.partition("@")
        path = Path(own or "", name, f"{choice}.yaml")
        if not path.is_file() or (config_dir() / name / f"{choice}.yaml").is_file():
            continue
        content = load_yaml(path)
        for entry in content.pop("defaults", []):
            for key, _ in entry.items() if isinstance(entry, dict) else ():
                yield re.sub(r"^override\s+", "", str(key)).lstrip("/")
        is_global = re.match(r"#\s*@package\s+_global_", path.read_text(encoding="utf-8")) or name == "local"
        yield from _leaves(content, "" if is_global else package or name)


def _in_named_files(given: Mapping[str, str]) -> Iterator[str]:
    """Settings in files that the command names in place of the usual ones, such as those of ``trainer=smoke``.

    Methods and data, which are named in most commands, are what choices are made for.
    """
    usual = {key: value for each in _usual_choices() for key, value in each.items()}
    for key, name in given.items():
        group, _, package = key.partition("@")
        path = config_dir() / group / f"{name}.yaml"
        if group not in _CHOSEN_FOR and usual.get(key) != name and path.is_file():
            content = load_yaml(path)
            content.pop("defaults", None)
            yield from _leaves(content, package or group)


def _usual_choices() -> list[dict[str, Any]]:
    return [each for each in load_yaml(config_dir() / "pretrain.yaml")["defaults"] if isinstance(each, dict)]


def _leaves(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, below in node.items():
            yield from _leaves(below, f"{key}.{name}" if key else str(name))
    else:
        yield key


def composed(command: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of a command, without Hydra's own settings, and what is chosen in each of its groups."""
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return composed(command, overrides)
    cfg = hydra.compose_config(command, list(overrides), run_mode=RunMode.RUN, with_log_configuration=False)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices  # type: ignore[return-value]


def save_choices(choices: Sequence[Choice], run_dir: Path) -> None:
    """Write the choices of a run beside its settings."""
    content = [{"override": each.override, "reason": each.reason} for each in choices]

    def write(path: Path) -> None:
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")

    write_atomically(run_dir / CHOSEN, write)


def read_choices(run_dir: Path) -> list[Choice]:
    """The choices of a run; none for a run that made none.

    Raises:
        ValueError: If the file holds anything else.
    """
    path = run_dir / CHOSEN
    if not path.is_file():
        return []
    found = [each if isinstance(each, dict) else {} for each in load_yaml(path, list, within=run_dir)]
    check_saved_overrides([each.get("override") for each in found], str(path))
    return [Choice(each["override"], str(each.get("reason", ""))) for each in found]
