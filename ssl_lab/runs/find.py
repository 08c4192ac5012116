"""All runs below some folders, and what tells them apart; no run stops the others."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssl_lab.runs.facts import RunFacts, last_value, read_facts
from ssl_lab.runs.files import NOT_REPEATED, RUN_FILES, read_overrides

_OF_A_RUN = {"checkpoints", "pictures", "tokenizer", "target_tokenizer", "replaced"}
_OF_A_RUN |= {"wandb", "tensorboard", "mlflow", "trackio", "comet", "aim"}
_OF_A_SWEEP = ("multirun.yaml", "study.lock")


def find_runs(folders: Sequence[Path], closed: list[str] | None = None) -> Iterator[tuple[Path, Path | None]]:
    """Each run directory at or below the folders, once, with the folder of its sweep; links are not followed.

    Args:
        folders: Where to look.
        closed: Receives the folders that cannot be opened, with the reason.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    seen: set[str] = set()
    sweeps: dict[str, bool] = {}

    def note(error: OSError) -> None:
        if closed is not None:
            closed.append(f"{error.filename}: {error.strerror}")

    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Cannot list runs below {folder}: there is no such folder. Give a folder that holds run "
                "directories, such as runs."
            )
        top, real_top = str(folder), os.path.realpath(folder)
        for parent, sub_folders, files in os.walk(folder, onerror=note):
            is_run = any(name in files for name in RUN_FILES)
            sub_folders[:] = [
                name for name in sub_folders if not name.startswith(".") and not (is_run and name in _OF_A_RUN)
            ]
            real = real_top + parent[len(top) :]
            if is_run and real not in seen:
                seen.add(real)
                path = Path(parent)
                above = os.path.dirname(real)
                if above not in sweeps:
                    sweeps[above] = _is_sweep(Path(above))
                yield path, path.parent if sweeps[above] else None


def _is_sweep(folder: Path) -> bool:
    return folder.parent.name == "sweeps" or any((folder / name).is_file() for name in _OF_A_SWEEP)


def read_runs(folders: Sequence[Path | str], closed: list[str] | None = None) -> list[RunFacts]:
    """The facts of all runs at or below the folders, the newest first; see :func:`find_runs` for the arguments.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    runs = [read_facts(path, sweep) for path, sweep in find_runs([Path(folder) for folder in folders], closed)]
    return sorted(runs, key=lambda run: (-run.newest, str(run.path)))


def rank(runs: Sequence[RunFacts], metric: str, *, lowest: bool) -> list[tuple[RunFacts, float]]:
    """Runs that have measured a metric with its value, best first: the final one, or the last logged one before the end.

    A value that is not finite is none.

    Args:
        runs: Any runs.
        metric: Name of the metric, such as ``test/linear/top1``.
        lowest: Whether the lowest value is the best.

    Raises:
        ValueError: If no run has it; names those that are known.
    """
    found = []
    for run in runs:
        value = run.metrics.get(metric)
        if value is None:
            value = last_value(run.path / "metrics.csv", metric)
        if value is not None:
            found.append((run, value))
    if not found:
        known = sorted({name for run in runs for name in run.metrics})
        close = difflib.get_close_matches(metric, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"Cannot rank {len(runs)} runs by {metric}: none has measured it.{hint} "
            f"Choose from: {', '.join(known) or 'nothing, as no run has finished'}."
        )
    return sorted(found, key=lambda item: item[1] if lowest else -item[1])


def what_varies(trials: Sequence[RunFacts]) -> list[str]:
    """Describe each trial of a sweep by the settings that vary, as ``temperature=0.2,seed=1``; empty if unknown."""
    asked = [
        {key: value for key, _, value in (one.partition("=") for one in read_overrides(trial.path, []))}
        for trial in trials
    ]
    keys = dict.fromkeys(key for settings in asked for key in settings if key not in NOT_REPEATED)
    varying = [key for key in keys if len({settings.get(key) for settings in asked if settings}) > 1]
    short = short_keys(varying)
    return [",".join(f"{short[key]}={settings[key]}" for key in varying if key in settings) for settings in asked]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Keys of settings by their last part, as ``temperature`` for ``method.temperature``, if that tells all apart."""
    whole = {key: key.lstrip("+~") for key in keys}
    short = {key: re.split("[.@/]", name)[-1] for key, name in whole.items()}
    return short if len(set(short.values())) == len(short) else whole
