"""Decision to start, resume or skip a run, and the settings that may change when it resumes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ssl_lab.cli.arguments import as_override, literal, path_of, with_raw_paths
from ssl_lab.cli.paths import no_run
from ssl_lab.cli.trust.targets import check_saved_overrides, read_settings
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.limited import load_yaml
from ssl_lab.runs.directory import find_checkpoint, has_checkpoint, read_json
from ssl_lab.runs.find import short_keys

# Settings that leave the run what it is: where it lies, when it is saved, how it was started.
_OF_THE_COMMAND = ("run_dir", "sweep_dir", "ckpt", "resume", "force", "trial")
NOT_THE_RUN = (
    *_OF_THE_COMMAND,
    *(
        "logger",
        "adapt_to_data",  # what it has chosen is among the settings
        "pictures_every_n_epochs",
        "baselines",
        "data.verify_gib",
        "data.device_cache_gib",
        "save_every_n_minutes",
        "save_every_n_steps",
        "activation_checkpointing",
    ),
)
_WEIGHTS = "the weights of its checkpoint stay, so the setting would have no effect"
_SPLITS = "samples that were trained on would be judged on"
_STEPS = "steps, epochs and schedules so far were counted with the old one"
# Settings that runs of before them lack, which are null unless asked for.
_NEW_SETTINGS = (
    *("encoder.from_run", "encoder.weights", "encoder.normalise_by"),
    *("lora.rank", "lora.alpha", "lora.dropout", "lora.layers"),
)
# Settings that no run can change once it has a checkpoint, by patterns of their names, and why.
FIXED = {
    "seed": "weights, order and random streams came from the old one",
    "method._target_": "its checkpoint belongs to another objective",
    "encoder*._target_": "its checkpoint belongs to another network",
    "optim._target_": "its checkpoint holds the state of another optimizer",
    "method.generator_optim._target_": "its checkpoint holds the state of another optimizer",
    "method.loss._target_": "its checkpoint belongs to another objective",
    "encoder*.pretrained": _WEIGHTS,
    "lora.rank": "its checkpoint belongs to adapters of another rank",
    "lora.layers": "its checkpoint belongs to adapters of other layers",
    "encoder*.from_run": _WEIGHTS,
    "encoder*.weights": _WEIGHTS,
    "encoder*.normalise_by": "its checkpoint has learned from pixels that were normalised by the old one",
    "encoder.codes": _WEIGHTS,
    "data.seed": "the order of samples comes from seed=",
    "data.val_fraction": _SPLITS,
    "data.test_fraction": _SPLITS,
    "data.split_seed": _SPLITS,
    "data.split_column": _SPLITS,
    "trainer.accumulate_grad_batches": _STEPS,
    "trainer.limit_train_batches": _STEPS,
}
# The same for single methods, whose setting is only where a learned number starts from.
FIXED_OF_METHODS = {"CLIP": ("temperature",)}
_LONGEST_NAME = 120
_REPLACED = (
    *(
        "overrides.yaml",
        "chosen.yaml",
        "spec.json",
        "data_spec.json",
        "metrics.csv",
        "metrics.json",
        "evaluation.json",
        "finetune.json",
        "report.html",
    ),
    *("finetune.json", "checkpoints", "pictures", "tokenizer", "target_tokenizer"),
)
"""Files that a run writes after ``config.yaml``."""


@dataclass(frozen=True)
class Start:
    """Start of a run.

    Attributes:
        checkpoint: From which checkpoint, if any.
        finished: There is nothing left to do.
        changes: Settings of the run that are other ones now, in words.
        waits: Whether the directory holds what must stay as it is until the run has proved that it can resume.
        is_new: Whether it begins a run, and not from a checkpoint.
    """

    checkpoint: Path | None = None
    finished: bool = False
    changes: tuple[str, ...] = ()
    waits: bool = False
    is_new: bool = False


def chosen_run_dir() -> Path:
    """The run directory of this process, or of its trial, as Hydra has chosen it: what looks like interpolation is none."""
    return Path(OmegaConf.to_container(HydraConfig.get().runtime)["output_dir"])  # type: ignore[call-overload, index]


def use_run_dir(run_dir: Path) -> None:
    """Choose another run directory for this process and the ranks that it starts."""
    hydra_cfg = cast(DictConfig, HydraConfig.get())
    with read_write(hydra_cfg), open_dict(hydra_cfg):
        hydra_cfg.run.dir = literal(str(run_dir))
        hydra_cfg.runtime.output_dir = str(run_dir)


def task_overrides() -> list[str]:
    """Return the overrides of this run or trial, in Hydra's grammar; interpolations stay as they are."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task)  # type: ignore[return-value]


def begin(cfg: DictConfig, run_dir: Path) -> Start:
    """Look at the run directory and decide.

    Raises:
        FileNotFoundError: If ``ckpt=last`` finds no checkpoint.
        ValueError: If the directory holds a run with another configuration or none, or any run and ``resume=never``.
    """
    if cfg.resume not in ("auto", "never"):
        raise ValueError(f"Cannot use resume={cfg.resume}. Choose auto (resume the run in run_dir=) or never.")
    asked = find_checkpoint(run_dir) if cfg.ckpt == "last" else cfg.ckpt and Path(cfg.ckpt)
    if not (run_dir / "config.yaml").is_file():
        if has_checkpoint(run_dir):
            raise ValueError(
                f"Cannot start in {run_dir}: it holds the checkpoint of a run whose config.yaml is missing, and a new run "
                "would replace it. Restore the file, or choose another run_dir=."
            )
        if is_first_rank():  # others see what it has begun
            refuse_other_files(run_dir)
        return Start(asked, is_new=asked is None)
    second_life = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    if cfg.resume == "never" and asked is None and is_first_rank() and not second_life:  # others see what it has begun
        raise ValueError(f"Cannot start a run in {run_dir}: it holds one, and resume=never. Choose another run_dir=.")
    before = _read_config(run_dir)
    changed = differences(before, cfg)
    summary = read_json(run_dir / "summary.json")
    saved = has_checkpoint(run_dir)
    if not saved and summary.get("status") == "failed" and not summary.get("step"):
        return Start(asked, is_new=asked is None)  # it failed before its first step: nothing can be resumed
    if changed and not cfg.force:
        raise ValueError(
            f"Cannot resume {run_dir}: it holds a run with other settings: {_shown(changed)}. Choose another run_dir=, "
            "restore them, or resume with the new ones by force=true."
        )
    ended = summary.get("status") in (("finished",) if cfg.trial is None else ("finished", "pruned"))
    waits = bool(changed) or cfg.force or ended
    if asked is not None and (cfg.ckpt == "last" or asked.resolve().is_relative_to(run_dir.resolve())):
        checkpoint: Path | None = asked
    elif not cfg.force and ended:
        return Start(finished=True)
    else:
        checkpoint = find_checkpoint(run_dir) if saved else asked  # what it began from is behind it
    if checkpoint is not None:
        refuse_fixed(before, cfg, run_dir)
    return Start(checkpoint, changes=tuple(changed), waits=waits)


def refuse_other_files(run_dir: Path) -> None:
    """Refuse to begin a run where files lie that a run would replace: someone's own, or those of a run without its settings.

    A run that failed before its first step has left no more than a log and a summary.

    Raises:
        ValueError: Naming one.
    """
    found = [name for name in _REPLACED if (run_dir / name).is_file() or any((run_dir / name).glob("*"))]
    summary = run_dir / "summary.json"
    if summary.exists() and "status" not in read_json(summary):
        found.append(summary.name)
    if found:
        raise ValueError(
            f"Cannot start a run in {run_dir}: it holds {found[0]}, which the run would replace, but no config.yaml. Choose "
            "another run_dir=, or move the files away."
        )


def _read_config(run_dir: Path) -> DictConfig:
    try:
        return read_settings(run_dir / "config.yaml", to_build=False)
    except ValueError as error:
        raise ValueError(f"Cannot resume {run_dir}: {error} Restore the file, or choose another run_dir=.") from error


def refuse_fixed(before: DictConfig, now: DictConfig, run_dir: Path) -> None:
    """Refuse changes that could not take effect, or would make the run something that it is not, even if forced.

    Raises:
        ValueError: Naming the setting, and why.
    """
    method = str(OmegaConf.select(now, "method._target_")).rsplit(".", 1)[-1]
    fixed = {**FIXED, **{f"method.{name}": _WEIGHTS for name in FIXED_OF_METHODS.get(method, ())}}
    same_data = OmegaConf.select(before, "data._target_") == OmegaConf.select(now, "data._target_")
    for change in differences(before, now):
        key = change.split(": ")[0]
        if key.startswith("data.") and not same_data:
            continue  # their content is compared later
        pattern = next((pattern for pattern in fixed if fnmatchcase(key, pattern)), None)
        if pattern is not None:
            raise ValueError(
                f"Cannot resume {run_dir} with another {key} ({change.removeprefix(f'{key}: ')}), even by force=true: "
                f"{fixed[pattern]}. Restore the setting, or start a new run."
            )


def _shown(changed: Sequence[str]) -> str:
    return "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")


def differences(before: DictConfig, now: DictConfig) -> list[str]:
    """Settings of two configurations that differ, as ``key: old, now new``."""
    old, new = (_flat(OmegaConf.to_container(cfg, resolve=True)) for cfg in (before, now))
    keys = [key for key in {**old, **new} if not {key, key.split(".")[0]} & set(NOT_THE_RUN)]
    none = "nothing"
    return [
        f"{key}: {old.get(key, none)}, now {new.get(key, none)}"
        for key in keys
        if old.get(key, none) != new.get(key, none)
        and not (key in _NEW_SETTINGS and not old.get(key) and not new.get(key))
    ]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    below = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in node.items())
    return {key: leaf for name, value in below for key, leaf in _flat(value, name).items()}


def with_saved_overrides(args: Sequence[str]) -> list[str]:
    """The command line with ``run=DIR`` replaced by what that run was started with; later overrides come on top.

    Paths that are given are quoted for Hydra.

    Raises:
        FileNotFoundError: If the directory is no run.
        ValueError: If the command is a sweep, or what is saved is more than the settings of a run.
    """
    sweep = any(arg in ("-m", "--multirun") for arg in args)
    given = with_raw_paths([arg for arg in args if not arg.startswith("run=")], sweep=sweep)
    run_dir = path_of(args, "run")
    if run_dir is None:
        return given
    if sweep:
        raise ValueError(
            f"Cannot sweep with -m over run={run_dir}: it resumes one run. Start the same sweep with its sweep_dir=."
        )
    if not (run_dir / "overrides.yaml").is_file():
        raise no_run(run_dir, "overrides.yaml")
    keys = {_key(arg) for arg in given} | {"run_dir"}
    saved = load_yaml(run_dir / "overrides.yaml", list, within=run_dir)
    check_saved_overrides(saved, str(run_dir / "overrides.yaml"), replaced=keys)
    kept = [arg for arg in saved if _key(arg) not in keys]
    return [*kept, as_override("run_dir", run_dir), *given]


def without_resumption(overrides: Sequence[str]) -> list[str]:
    """The overrides that define a run, without those that control its resumption."""
    return [override for override in overrides if _key(override) not in ("ckpt", "resume", "force", "trial")]


def _key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def trial_name(overrides: Sequence[str], fixed: Sequence[str]) -> str:
    """Name of a trial's directory: what varies in its sweep, as in ``temperature=0.2,seed=1``.

    The same for the same trial of any order of arguments, and another one for every other trial of its sweep: where
    characters are replaced or the end is cut, a digest of the whole follows. A trial in whose sweep nothing varies is
    named by its experiment or method, its seed, and a digest of its settings.

    Args:
        overrides: All overrides of the trial.
        fixed: Keys of those that are the same in the whole sweep, or leave the run what it is.
    """
    given = {_key(one): one.partition("=")[2] for one in sorted(overrides, key=_key)}
    values = {key: value for key, value in given.items() if key not in fixed}
    short = short_keys(values)
    whole = ",".join(f"{short[key]}={value}" for key, value in values.items())
    is_alone = not values
    if is_alone:
        values = {key: value for key, value in given.items() if key not in _OF_THE_COMMAND}
        seed = [f"seed={values['seed']}"] if "seed" in values else []
        whole = ",".join([values.get("experiment") or values.get("method") or "trial", *seed])
    name = re.sub(r"[^\w.,=+@\[\]-]+", "_", re.sub(r"(?<==)(['\"])(.*?)\1(?=,|$)", r"\2", whole))
    if name == whole and len(os.fsencode(name)) <= _LONGEST_NAME - 9 and not is_alone:
        return name
    digest = hashlib.sha256(",".join(f"{key}={value}" for key, value in values.items()).encode()).hexdigest()[:8]
    return f"{os.fsencode(name)[: _LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"
