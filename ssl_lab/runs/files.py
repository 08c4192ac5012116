"""The files of a run directory one by one; invalid parts are left out and named."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from ssl_lab.limited import UnreadableFileError, load_json, load_yaml

RUN_FILES = ("config.yaml", "summary.json", "metrics.csv")
"""Files of which a run directory has at least one."""
NOT_REPEATED = ("run_dir", "sweep_dir", "resume", "force", "ckpt")
"""Overrides that say where a run is, and not what it is."""
_LARGEST = 1e100  # of a number: means and deviations of such are still numbers
_MAX_NAME, _MAX_TEXT = 300, 20_000  # characters of a name and of an error
_NUMBERS = (
    "seed", "step", "epoch", "num_parameters", "num_train_samples", "wall_time_sec", "training_time_sec",
    "samples_per_sec",
)  # fmt: skip
_TEXTS = (
    "status", "error", "experiment", "method", "data", "encoder", "hardware", "commit", "started", "checkpoint", "start",
    "pretraining",
)  # fmt: skip


def noted(read: Callable[[], Any], problems: list[str], otherwise: Any) -> Any:
    """Return the result of ``read``, or ``otherwise`` if the file is missing or unreadable (named in ``problems``)."""
    try:
        return read()
    except FileNotFoundError:
        return otherwise
    except UnreadableFileError as error:
        problems.append(error.sentence)
        return otherwise


def read_summary(run_dir: Path, problems: list[str]) -> dict[str, Any]:
    """``summary.json`` without values of the wrong type; empty if it is missing."""
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
    if "started" in summary and time_of(summary["started"]) is None:
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
    """``evaluation.json``: rows with a name and metrics, None for values that are not finite; None if it is missing."""
    found = noted(lambda: load_json(run_dir / "evaluation.json", within=run_dir), problems, None)
    if found is None:
        return None
    rows = found.get("rows")
    if not isinstance(rows, list):
        problems.append("evaluation.json has no rows.")
        return None
    if not all(isinstance(row, dict) and isinstance(row.get("metrics"), dict) and row.get("name") for row in rows):
        problems.append("evaluation.json has a row that is not a mapping with a name and metrics.")
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
    """``metrics.json``: the meanings of metrics, read by :func:`ssl_lab.metrics.described`."""
    found: dict[str, Any] = noted(lambda: load_json(run_dir / "metrics.json", within=run_dir), problems, {})
    return found


def _record(found: dict[str, Any]) -> dict[str, Any] | None:
    """A valid record of :mod:`ssl_lab.measured`, or None."""
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


def command_of(run_dir: Path, problems: list[str]) -> list[str]:
    """The command that repeats a run in another directory; empty if its overrides cannot be read."""
    if not (overrides := read_overrides(run_dir, problems)):
        return []
    kept = [override for override in overrides if override.split("=")[0] not in NOT_REPEATED]
    if "start" in read_summary(run_dir, []):
        return ["ssl-lab", "finetune", *kept]
    return ["ssl-lab", "pretrain", *_as_chosen(run_dir, kept, problems)]


def _as_chosen(run_dir: Path, overrides: Sequence[str], problems: list[str]) -> list[str]:
    """Overrides with the choices that a run made by its data, which another machine might not make."""
    if any(each.startswith(("experiment=", "adapt_to_data=")) for each in overrides):
        return list(overrides)
    file = run_dir / "chosen.yaml"
    found = noted(lambda: load_yaml(file, list, within=run_dir), problems, []) if file.exists() else []
    choices = [each.get("override") for each in found if isinstance(each, dict)]
    return [*(str(each) for each in choices if each), *overrides, "adapt_to_data=false"]


def shell_line(command: Sequence[str]) -> str:
    """A command as one writes it in a shell; arguments with single quotes stand in double ones where these change nothing."""
    return " ".join(
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word) for word in command
    )


def number(value: object) -> float | None:
    """A number that one can reckon with, or None."""
    return float(value) if _is_number(value) and abs(value) <= _LARGEST else None  # not NaN either


def time_of(text: str) -> datetime | None:
    """The time that a text says, or None."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


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


def number_in(cell: str) -> float | None:
    """The number that a cell of a table holds, NaN and infinity among them, or None."""
    try:
        value = float(cell) if cell else None
    except ValueError:
        return None
    return math.copysign(math.inf, value) if value is not None and abs(value) > _LARGEST else value
