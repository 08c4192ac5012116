"""Reading a run directory, finished or not: whatever is missing or half written is left out and named."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from ssl_lab.captions import CAPTION_FILE, Caption
from ssl_lab.limited import (
    UnreadableFileError,
    load_json,
    load_yaml,
    parse_yaml,
    read_bytes,
    read_table,
    read_text,
)
from ssl_lab.measured import Record, current, described_in, records_of
from ssl_lab.metrics import Metric, checked, described, joined

RUN_FILES = ("config.yaml", "summary.json", "metrics.csv")
"""What makes a directory a run: one of these."""
_LARGEST = 1e100  # of a number: means and deviations of such are still numbers
_MAX_NAME, _MAX_TEXT = 300, 20_000  # characters of a name and of an error
_MAX_CELLS = 5_000_000  # of learning curves
_MAX_PICTURE_BYTES, _MAX_PIXELS = 64 << 20, 100_000_000
_NUMBERS = (
    "seed", "step", "epoch", "num_parameters", "num_train_samples", "wall_time_sec", "training_time_sec",
    "samples_per_sec",
)  # fmt: skip
_TEXTS = (
    "status", "error", "experiment", "method", "data", "encoder", "hardware", "commit", "started", "checkpoint", "start",
    "pretraining",
)  # fmt: skip


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
        captions: Of each name of pictures or sentences what their caption says, as far as it has one.
        described: What its metrics mean, by name, as far as it says so.
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
    captions: Mapping[str, Caption]
    described: Mapping[str, Metric]
    problems: Sequence[str]

    @property
    def method(self) -> str:
        """Name of the method, as far as it is known."""
        return self.summary.get("method") or "Run"

    @property
    def measured(self) -> list[Record]:
        """Records of what was measured of the newest weights."""
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
            f"Cannot report on {run_dir}: it is no run, as none of {', '.join(RUN_FILES)} is there; "
            f"found {found}. {advice}"
        )
    problems: list[str] = []
    config_text = noted(lambda: read_text(run_dir / "config.yaml", within=run_dir), problems, "")
    config = noted(lambda: parse_yaml(config_text, run_dir / "config.yaml"), problems, {}) if config_text else {}
    overrides, summary = read_overrides(run_dir, problems), read_summary(run_dir, problems)
    evaluation = read_evaluation(run_dir, problems)
    descriptions = joined([read_descriptions(run_dir, problems), *described_in(evaluation or {})])
    return Run(
        path=run_dir.resolve(),
        config_text=config_text,
        config=config,
        overrides=overrides,
        summary=summary,
        evaluation=evaluation,
        curves=_read_curves(run_dir, problems),
        pictures=_read_pictures(run_dir, problems),
        sentences=_read_sentences(run_dir, problems),
        captions=_read_captions(run_dir, problems),
        described=described(descriptions, problems),
        problems=problems,
    )


def noted(read: Callable[[], Any], problems: list[str], otherwise: Any) -> Any:
    """What ``read`` returns; ``otherwise`` if there is no file, or none that can be read, which ``problems`` then names."""
    try:
        return read()
    except FileNotFoundError:
        return otherwise
    except UnreadableFileError as error:
        problems.append(error.sentence)
        return otherwise


def read_summary(run_dir: Path, problems: list[str]) -> dict[str, Any]:
    """``summary.json``, without what is not of the type that it should have; empty if there is none."""
    found: dict[str, Any] = noted(lambda: load_json(run_dir / "summary.json", within=run_dir), problems, {})
    summary = dict(found)

    def drop(key: str, wanted: str) -> None:
        if summary[key] is not None:
            problems.append(f"summary.json: {key} should be {wanted}, found {shortened(repr(summary[key]), 40)}.")
        del summary[key]

    for key in [key for key in _NUMBERS if key in summary and number(summary[key]) is None]:
        drop(key, "a number")
    for key in [key for key in _TEXTS if key in summary]:
        if not isinstance(summary[key], str):
            drop(key, "a text")
        else:
            summary[key] = shortened(summary[key], _MAX_TEXT if key == "error" else _MAX_NAME)
    if "started" in summary and not _is_time(summary["started"]):
        drop("started", "a time")
    for key in [key for key in ("metrics", "objective", "versions") if key in summary]:
        if not isinstance(summary[key], dict):
            drop(key, "a mapping")
    if "changes" in summary:
        if isinstance(summary["changes"], list) and all(isinstance(change, str) for change in summary["changes"]):
            summary["changes"] = [shortened(change, _MAX_TEXT) for change in summary["changes"]]
        else:
            drop("changes", "a list of texts")
    if "metrics" in summary:
        summary["metrics"] = numbers(summary["metrics"])
    if "objective" in summary:
        name, value = summary["objective"].get("name"), number(summary["objective"].get("value"))
        if isinstance(name, str) and name:
            summary["objective"] = {"name": shortened(name), "value": value}
        else:
            del summary["objective"]
    return summary


def read_evaluation(run_dir: Path, problems: list[str]) -> dict[str, Any] | None:
    """``evaluation.json``, each row with a name and metrics, None for those not finite; None if there is no such file."""
    found = noted(lambda: load_json(run_dir / "evaluation.json", within=run_dir), problems, None)
    if found is None:
        return None
    rows = found.get("rows")
    if not isinstance(rows, list):
        problems.append("evaluation.json has no rows.")
        return None
    if not all(isinstance(row, dict) and isinstance(row.get("metrics"), dict) and row.get("name") for row in rows):
        problems.append("evaluation.json has a row that is no mapping with a name and metrics.")
        return None
    wrong = [
        name for row in rows for name, value in row["metrics"].items() if value is not None and not _is_number(value)
    ]
    if wrong:
        problems.append(f"evaluation.json: {shortened(str(wrong[0]))} should be a number.")
    rows = [{**row, "name": shortened(str(row["name"])), "metrics": _scores(row["metrics"])} for row in rows]
    texts = {key: shortened(str(found[key])) for key in ("data", "split") if found.get(key) is not None}
    measured = [_record(record) for record in found.get("measured") or () if isinstance(record, dict)]
    if any(record is None for record in measured) or not isinstance(found.get("measured", []), list):
        problems.append("evaluation.json: measured should be a list of records; its rows are shown.")
        measured = []
    rest = {key: value for key, value in found.items() if key not in ("data", "split", "measured")}
    return {**rest, **texts, "rows": rows, "measured": measured}


def read_descriptions(run_dir: Path, problems: list[str]) -> dict[str, Any]:
    """``metrics.json``: what the names of metrics mean, to be read by :func:`ssl_lab.metrics.described`."""
    found: dict[str, Any] = noted(lambda: load_json(run_dir / "metrics.json", within=run_dir), problems, {})
    return found


def _record(found: dict[str, Any]) -> dict[str, Any] | None:
    """A record of :mod:`ssl_lab.measured` with what it should have, or None."""
    metrics, data = found.get("metrics"), found.get("data") or {}
    settings, baselines = found.get("settings") or {}, found.get("baselines") or {}
    if not all(isinstance(part, dict) for part in (metrics, data, settings, baselines)) or not metrics:
        return None
    if not all(isinstance(row, dict) for row in metrics.values()) or not isinstance(data.get("shape") or [], list):
        return None
    plain = {
        key: found[key] for key in ("protocol", "split", "weights", "signature") if isinstance(found.get(key), str)
    }
    data = {key: shortened(value) if isinstance(value, str) else value for key, value in data.items()}
    rows = {shortened(str(name)): _scores(row) for name, row in metrics.items()}
    kinds = {shortened(str(row)): kind for row, kind in baselines.items() if isinstance(kind, str)}
    plain |= {"described": found.get("described"), "settings": settings, "data": data}
    return {**plain, "baselines": kinds, "metrics": rows}


def read_overrides(run_dir: Path, problems: list[str]) -> list[str]:
    """``overrides.yaml``, empty if there is none."""
    found = noted(lambda: load_yaml(run_dir / "overrides.yaml", list, within=run_dir), problems, [])
    if not all(isinstance(override, str) for override in found):
        problems.append("overrides.yaml should hold texts alone.")
        return []
    return list(found)


def number(value: object) -> float | None:
    """A number that one can reckon with, or None."""
    return float(value) if _is_number(value) and abs(value) <= _LARGEST else None  # not NaN either


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scores(metrics: Mapping[Any, object]) -> dict[str, float | None]:
    return {
        shortened(str(name)): number(value) for name, value in metrics.items() if value is None or _is_number(value)
    }


def numbers(metrics: Mapping[Any, object]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {shortened(str(name)): value for name, cell in metrics.items() if (value := number(cell)) is not None}


def shortened(text: str, length: int = _MAX_NAME) -> str:
    """A text that a page can show."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _read_curves(run_dir: Path, problems: list[str]) -> dict[str, Curve]:
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


def number_in(cell: str) -> float | None:
    """The number that a cell of a table holds, NaN and infinity among them, or None."""
    try:
        value = float(cell) if cell else None
    except ValueError:
        return None
    return math.copysign(math.inf, value) if value is not None and abs(value) > _LARGEST else value


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
