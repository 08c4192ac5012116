"""Content of one run directory, for a page about it: missing or half-written parts are left out and named.

Thousands of runs are listed by :mod:`ssl_lab.runs.facts`, which opens far less.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssl_lab.captions import CAPTION_FILE, Caption
from ssl_lab.limited import UnreadableFileError, load_json, parse_yaml, read_bytes, read_table, read_text
from ssl_lab.measured import Record, current, described_in, records_of
from ssl_lab.metrics import Metric, checked, described, joined
from ssl_lab.runs.files import (
    RUN_FILES,
    command_of,
    noted,
    number_in,
    read_descriptions,
    read_evaluation,
    read_summary,
    shortened,
)

_MAX_CELLS = 5_000_000  # of learning curves
_MAX_PICTURE_BYTES, _MAX_PIXELS = 64 << 20, 100_000_000


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One logged metric: values at increasing optimizer steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Content of a run directory.

    Attributes:
        path: The directory.
        config_text: ``config.yaml`` as written, empty if missing.
        config: The same, parsed.
        command: What does it again; empty if its overrides cannot be read.
        summary: ``summary.json``, empty if missing.
        evaluation: ``evaluation.json``, or None if missing.
        curves: Columns of ``metrics.csv`` that hold numbers, by name.
        pictures: PNG files of each name by step, in increasing order.
        sentences: Masked sentences of each name by step, in increasing order; each a list of tokens
            ``{"text", "guess", "correct"}``.
        captions: Of each name of pictures or sentences what their caption says, as far as it has one.
        described: What its metrics mean, by name, as far as it says so.
        problems: Files that could not be read, as sentences for the reader.
    """

    path: Path
    config_text: str
    config: Mapping[str, Any]
    command: Sequence[str]
    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    curves: Mapping[str, Curve]
    pictures: Mapping[str, Mapping[int, Path]]
    sentences: Mapping[str, Mapping[int, list[list[dict[str, Any]]]]]
    captions: Mapping[str, Caption]
    described: Mapping[str, Metric]
    problems: Sequence[str]

    @property
    def method(self) -> str:
        """Name of the method, as far as it is known."""
        return self.summary.get("method") or "Run"

    @property
    def measured(self) -> list[Record]:
        """Records of the metrics of the newest weights."""
        settings = self.config.get("evaluation")
        records = records_of(self.evaluation or {}, settings if isinstance(settings, Mapping) else None)
        return current({"measured": records})

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
        raise FileNotFoundError(f"Cannot report on {run_dir}: there is no such directory. {advice}")
    if not any(os.path.lexists(run_dir / name) for name in RUN_FILES):
        found = ", ".join(sorted(path.name for path in run_dir.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"Cannot report on {run_dir}: it is not a run, as none of {', '.join(RUN_FILES)} is there; "
            f"found {found}. {advice}"
        )
    problems: list[str] = []
    config_text = noted(lambda: read_text(run_dir / "config.yaml", within=run_dir), problems, "")
    config = noted(lambda: parse_yaml(config_text, run_dir / "config.yaml"), problems, {}) if config_text else {}
    command, summary = command_of(run_dir, problems), read_summary(run_dir, problems)
    evaluation = read_evaluation(run_dir, problems)
    descriptions = joined([read_descriptions(run_dir, problems), *described_in(evaluation or {})])
    return Run(
        path=run_dir.resolve(),
        config_text=config_text,
        config=config,
        command=command,
        summary=summary,
        evaluation=evaluation,
        curves=read_curves(run_dir, problems),
        pictures=_read_pictures(run_dir, problems),
        sentences=_read_sentences(run_dir, problems),
        captions=_read_captions(run_dir, problems),
        described=described(descriptions, problems),
        problems=problems,
    )


def read_curves(run_dir: Path, problems: list[str]) -> dict[str, Curve]:
    """Columns by name; of several rows of one step the last counts, as after a resume from an earlier checkpoint."""
    points: dict[str, dict[int, float]] = {}

    def read() -> None:
        path = run_dir / "metrics.csv"
        rows = read_table(path, within=run_dir)
        head = next(rows, [])
        at = head.index("step") if "step" in head else -1
        names = {k: shortened(name) for k, name in enumerate(head) if name not in ("", "step", "epoch")}
        num_left = _MAX_CELLS
        for row in rows if at >= 0 else ():
            step = number_in(row[at]) if at < len(row) else None
            if step is None or not math.isfinite(step) or abs(step) > 2**53:
                continue
            for k, name in names.items():
                value = number_in(row[k]) if k < len(row) else None
                if value is not None:
                    points.setdefault(name, {})[int(step)] = value
            num_left -= len(row)
            if num_left < 0:
                raise UnreadableFileError(path, f"it has more than {_MAX_CELLS:,} cells; those behind are left out")

    noted(read, problems, None)
    return {
        name: Curve(steps=tuple(sorted(by_step)), values=tuple(by_step[step] for step in sorted(by_step)))
        for name, by_step in points.items()
    }


def _by_step(folder: Path, suffix: str) -> dict[int, Path]:
    found = {}
    for path in _listed(folder):
        if match := re.fullmatch(rf"step_([0-9]{{1,15}})\.{suffix}", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # none, or it must not be looked into
        return []


def _folders(run_dir: Path) -> list[Path]:
    return [path for path in _listed(run_dir / "pictures") if path.is_dir()]


def _read_pictures(run_dir: Path, problems: list[str]) -> dict[str, dict[int, Path]]:
    complete = {
        folder.name: {
            step: path
            for step, path in _by_step(folder, "png").items()
            if _is_complete_png(noted(partial(_picture, path, run_dir), problems, b""))
        }
        for folder in _folders(run_dir)
    }
    return {name: by_step for name, by_step in complete.items() if by_step}


def _picture(path: Path, run_dir: Path) -> bytes:
    return read_bytes(path, within=run_dir, max_bytes=_MAX_PICTURE_BYTES)


def _is_complete_png(content: bytes) -> bool:
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[-8:-4] != b"IEND":
        return False
    return int.from_bytes(content[16:20]) * int.from_bytes(content[20:24]) <= _MAX_PIXELS


def _read_sentences(run_dir: Path, problems: list[str]) -> dict[str, dict[int, list[list[dict[str, Any]]]]]:
    found = {}
    for folder in _folders(run_dir):
        complete = {}
        for step, path in _by_step(folder, "json").items():
            sentences = noted(partial(load_json, path, list, within=run_dir), problems, [])
            if not all(isinstance(sentence, list) and all(map(_is_token, sentence)) for sentence in sentences):
                problems.append(f"{path.name} should hold sentences, each a list of tokens.")
            elif sentences:
                complete[step] = sentences
        if complete:
            found[folder.name] = complete
    return found


def _read_captions(run_dir: Path, problems: list[str]) -> dict[str, Caption]:
    plain = {
        folder.name: noted(partial(load_json, folder / CAPTION_FILE, within=run_dir), problems, None)
        for folder in _folders(run_dir)
    }
    found = {
        name: checked(Caption, caption, f"pictures/{name}/{CAPTION_FILE}", problems)
        for name, caption in plain.items()
        if caption is not None
    }
    return {name: caption for name, caption in found.items() if caption is not None}


def _is_token(token: object) -> bool:
    return (
        isinstance(token, dict)
        and isinstance(token.get("text"), str)
        and isinstance(token.get("guess", 0), str | None)
        and isinstance(token.get("correct", 0), bool | None)
    )
