"""Details of one run in the dashboard, once it is chosen: curves, pictures, results, configuration."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from ssl_lab.report import pictures, tables
from ssl_lab.report.curves import thinned
from ssl_lab.report.dashboard.index import Entry
from ssl_lab.report.page import facts, report_page, tiles
from ssl_lab.runs.files import command_of, shell_line
from ssl_lab.runs.read import Curve, Run, read_run

_MAX_POINTS = 1000  # of a curve
_T = TypeVar("_T")


def read_details(entry: Entry) -> dict[str, Any]:
    """Read a run directory for the page; leave out damaged parts and name them in ``problems``."""
    problems: list[str] = []
    path = entry.facts.path
    run = attempt(lambda: read_run(path), "The run directory", problems)
    details: dict[str, Any] = {
        "id": entry.id,
        "version": entry.version,
        "path": str(path),
        "error": entry.facts.error,
        "command": shell_line(command_of(path, [])),
        "settings": dict(entry.settings),
        "curves": {},
        "pictures": [],
        "readings": [],
        "results": [],
        "tiles": [],
        "facts": [],
        "config": "",
        "report": os.path.lexists(path / "report.html"),
        "samples_per_step": None,
    }
    if run is not None:
        details |= {
            "curves": {name: _points(curve) for name, curve in run.curves.items()},
            "pictures": _pictures(run),
            "config": run.config_text,
            "samples_per_step": _samples_per_step(entry.settings, run.summary.get("hardware")),
            "readings": attempt(lambda: _readings(run), "The sentences", problems) or [],
            "results": attempt(lambda: _results(run), "evaluation.json", problems) or [],
            "tiles": attempt(lambda: tiles(run), "summary.json", problems) or [],
            "facts": attempt(lambda: facts(run.summary), "summary.json", problems) or [],
        }
        problems += run.problems
    details["problems"] = list(dict.fromkeys([*entry.problems, *problems]))
    return details


def picture_file(run_dir: Path, name: str, file: str) -> Path | None:
    """A picture inside a run directory; None if it is missing or a link leads out of the directory."""
    path = run_dir / "pictures" / name / file
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(run_dir))
    return path if inside and path.is_file() else None


def report_of(run_dir: Path) -> bytes | None:
    """Rebuild the report of a run that has one, as its file may hold scripts; None if it has none."""
    if not os.path.lexists(run_dir / "report.html"):
        return None
    return report_page(read_run(run_dir))


def attempt(read: Callable[[], _T], what: str, problems: list[str]) -> _T | None:
    """Read one part of a run so that a damaged file does not affect the other parts."""
    try:
        return read()
    except Exception as error:
        problems.append(f"{what} cannot be shown ({type(error).__name__}: {error}).")
        return None


def _points(curve: Curve) -> dict[str, list[Any]]:
    curve = thinned(curve, _MAX_POINTS)
    values = [float(f"{value:.6g}") if math.isfinite(value) else None for value in curve.values]
    return {"step": list(curve.steps), "value": values}


def _pictures(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "title": caption.title,
            "caption": caption.explanation,
            "files": {step: path.name for step, path in run.pictures[name].items()},
        }
        for name, caption in pictures.captions_of(run.pictures, run.captions).items()
    ]


def _readings(run: Run) -> list[dict[str, Any]]:
    return [asdict(reading) for reading in pictures.readings(run.sentences, run.captions)]


def _results(run: Run) -> list[dict[str, Any]]:
    return [asdict(table) for table in tables.tables(run.evaluation)] if run.evaluation else []


def _samples_per_step(settings: Mapping[str, str], hardware: object) -> int | None:
    """Samples of one optimizer step on all devices; None where the configuration does not say it in numbers."""
    factors = [settings.get("data.batch_size", "")]
    factors += [settings.get(f"trainer.{key}", "1") for key in ("accumulate_grad_batches", "devices", "num_nodes")]
    gpus = re.match(r"(\d+) x ", str(hardware))  # what "auto" was
    factors = [(gpus[1] if gpus else "1") if factor == "auto" else factor for factor in factors]
    return math.prod(map(int, factors)) if all(factor.isdecimal() for factor in factors) else None
