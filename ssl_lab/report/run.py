"""Reading a run directory, finished or not: whatever is missing or half written is left out and named."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RUN_FILES = ("config.yaml", "summary.json", "metrics.csv")
"""What makes a directory a run: one of these."""
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe, and ten times as fast where libyaml is there."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One logged metric: values at increasing optimizer steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run directory holds.

    Attributes:
        path: The directory.
        config_text: ``config.yaml`` as written, empty if missing.
        config: The same, parsed.
        overrides: What was asked on the command line.
        summary: ``summary.json``, empty if missing.
        evaluation: ``evaluation.json``, or None if missing.
        curves: Columns of ``metrics.csv`` that hold numbers, by name.
        pictures: PNG files of each name by step, in increasing order.
        sentences: Masked sentences of each name by step, in increasing order; each a list of tokens
            ``{"text", "guess", "correct"}``.
        problems: Files that could not be read, as sentences for the reader.
    """

    path: Path
    config_text: str
    config: Mapping[str, Any]
    overrides: Sequence[str]
    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    curves: Mapping[str, Curve]
    pictures: Mapping[str, Mapping[int, Path]]
    sentences: Mapping[str, Mapping[int, list[list[dict[str, Any]]]]]
    problems: Sequence[str]

    @property
    def method(self) -> str:
        """Name of the method, as far as it is known."""
        return self.summary.get("method") or "Run"

    @property
    def data(self) -> str:
        """Name of the data, as far as it is known."""
        return self.summary.get("data") or (self.evaluation or {}).get("data") or "unknown data"


def read_run(run_dir: Path | str) -> Run:
    """Everything a report needs from a run directory.

    Args:
        run_dir: A directory that holds at least one of ``RUN_FILES``.

    Raises:
        FileNotFoundError: If there is no such directory.
        ValueError: If the directory is no run.
    """
    run_dir = Path(run_dir)
    advice = "Give the run directory that training printed; it holds config.yaml."
    if not run_dir.is_dir():
        raise FileNotFoundError(f"A report was asked for {run_dir}, but there is no such directory. {advice}")
    if not any((run_dir / name).is_file() for name in RUN_FILES):
        found = ", ".join(sorted(path.name for path in run_dir.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"A report was asked for {run_dir}, but it is no run: none of {', '.join(RUN_FILES)} is there; "
            f"found {found}. {advice}"
        )
    problems: list[str] = []
    evaluation = _read(run_dir / "evaluation.json", dict, problems)
    if evaluation is not None and "rows" not in evaluation:
        problems.append("evaluation.json has no rows.")
        evaluation = None
    config_text = _read_text(run_dir / "config.yaml", problems)
    return Run(
        path=run_dir.resolve(),
        config_text=config_text,
        config=_parsed(config_text, run_dir / "config.yaml", dict, problems) or {},
        overrides=_read(run_dir / "overrides.yaml", list, problems) or [],
        summary=_read(run_dir / "summary.json", dict, problems) or {},
        evaluation=evaluation,
        curves=_read_curves(run_dir / "metrics.csv"),
        pictures=_read_pictures(run_dir / "pictures"),
        sentences=_read_sentences(run_dir / "pictures", problems),
        problems=problems,
    )


def _read_text(path: Path, problems: list[str]) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problems.append(f"{path.name} is not UTF-8 text: {error}")
        return ""


def _parsed(text: str, path: Path, kind: type, problems: list[str]) -> Any:
    """Contents of a YAML or JSON text; None, and a problem noted, if it is cut off or of another kind."""
    try:
        value = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=YAML_LOADER)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        problems.append(f"{path.name} cannot be read, perhaps it is half written ({str(error).splitlines()[0]}).")
        return None
    if value is not None and not isinstance(value, kind):
        problems.append(f"{path.name} should hold a {kind.__name__}, but holds a {type(value).__name__}.")
        return None
    return value


def _read(path: Path, kind: type, problems: list[str]) -> Any:
    text = _read_text(path, problems)
    return _parsed(text, path, kind, problems) if text or path.is_file() else None


def _read_curves(path: Path) -> dict[str, Curve]:
    """Columns by name; of several rows of one step the last counts, as after a resume from an earlier checkpoint."""
    if not path.is_file():
        return {}
    points: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            if step is None:
                continue
            for name, cell in row.items():
                value = _number(cell)
                if name not in (None, "step", "epoch") and value is not None:
                    points.setdefault(name, {})[int(step)] = value
    return {
        name: Curve(steps=tuple(sorted(by_step)), values=tuple(by_step[step] for step in sorted(by_step)))
        for name, by_step in points.items()
    }


def _number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) and cell else None
    except ValueError:
        return None


def _by_step(folder: Path, suffix: str) -> dict[int, Path]:
    found = {}
    for path in folder.iterdir():
        if match := re.fullmatch(rf"step_(\d+)\.{suffix}", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _folders(pictures: Path) -> list[Path]:
    return sorted(path for path in pictures.iterdir() if path.is_dir()) if pictures.is_dir() else []


def _read_pictures(pictures: Path) -> dict[str, dict[int, Path]]:
    complete = {
        folder.name: {step: path for step, path in _by_step(folder, "png").items() if _is_complete_png(path)}
        for folder in _folders(pictures)
    }
    return {name: by_step for name, by_step in complete.items() if by_step}


def _is_complete_png(path: Path) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content[-8:-4] == b"IEND"


def _read_sentences(pictures: Path, problems: list[str]) -> dict[str, dict[int, list[list[dict[str, Any]]]]]:
    found = {}
    for folder in _folders(pictures):
        read = {step: _read(path, list, problems) for step, path in _by_step(folder, "json").items()}
        if complete := {step: sentences for step, sentences in read.items() if sentences}:
            found[folder.name] = complete
    return found
