"""Self-contained HTML pages: one run, or several compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from ssl_lab.files import replace_file
from ssl_lab.outputs import marked
from ssl_lab.report import pictures, tables
from ssl_lab.report.animation import write_animation
from ssl_lab.report.curves import NUM_COLORS, comparison_panels, run_panels
from ssl_lab.report.vocabulary import describe, duration
from ssl_lab.runs.compare import config_differences, evaluations_by_data, run_labels
from ssl_lab.runs.files import shell_line
from ssl_lab.runs.read import Run, read_run
from ssl_lab.verdict import stored

_MISSING = "–"
IS_PAGE = marked(b"<footer>Written by ssl_lab", begin=b"<!doctype html>")
"""Test of whether a file is one of these pages, which a new one may replace."""


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` into a run directory: results, learning curves, pictures, configuration.

    Pictures of the same tiles at several steps also become ``pictures/<name>/animation.gif``.

    The page is one file without scripts or external requests. It can be written at any time: of a run that is still
    going, was interrupted or failed, it shows what is there. The file is replaced as a whole.

    Args:
        run_dir: A run directory.
        out: Another file to write; the run directory then stays as it is.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: If there is no such directory.
        ValueError: If the directory is no run.
    """
    run = read_run(run_dir)
    for name, caption in pictures.captions_of(run.pictures, run.captions).items():
        folder = run_dir / "pictures" / name
        if out is None and caption.same_tiles and folder.resolve().is_relative_to(run_dir.resolve()):
            write_animation(run.pictures[name], folder / "animation.gif")
    if out is not None:
        return replace_file(out, report_page(run), through_link=True)
    return replace_file(run_dir / "report.html", report_page(run))


def report_page(run: Run) -> bytes:
    """The report of a run as one page without scripts; all that the run holds is escaped."""
    page = (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            summary=run.summary,
            tiles=tiles(run),
            has_headline=_objective(run)[0] != _MISSING,
            results=tables.tables(run.evaluation) if run.evaluation else [],
            shares=tables.class_shares(run.evaluation) if run.evaluation else [],
            split=(run.evaluation or {}).get("split"),
            verdict=stored(run.summary, run.evaluation),
            panels=run_panels(run),
            galleries=pictures.galleries(run.pictures, run.captions),
            readings=pictures.readings(run.sentences, run.captions),
            command=shell_line(run.command),
            facts=facts(run.summary),
        )
    )
    return page.encode()


def is_current(run_dir: Path) -> bool:
    """Return whether the run's report was written after its summary."""
    report, summary = run_dir / "report.html", run_dir / "summary.json"
    return report.is_file() and report.stat().st_mtime_ns >= summary.stat().st_mtime_ns


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page about several runs: their results side by side, their curves over each other, what differs.

    Args:
        run_dirs: Run directories, in the order in which they are shown.
        out: The file to write; its folder is made if missing.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: If one of the directories does not exist.
        ValueError: If no directory is given, or one of them is no run.
    """
    if not run_dirs:
        raise ValueError("Cannot compare runs: no run directory is given. Name one or more.")
    runs = [read_run(run_dir) for run_dir in run_dirs]
    labels = run_labels(runs)
    page = (
        environment()
        .get_template("comparison.html")
        .render(
            runs=[
                {
                    "label": label,
                    "color": k,
                    "run": run,
                    "objective": _objective(run),
                    "duration": duration(_training_time(run.summary)),
                }
                for k, (label, run) in enumerate(zip(labels, runs, strict=True))
            ],
            results=[
                (title, tables.tables(evaluation), tables.class_shares(evaluation))
                for title, evaluation in evaluations_by_data(runs, labels)
            ],
            panels=comparison_panels(runs, labels),
            differences=config_differences(runs),
            labels=labels,
            methods={run.method for run in runs},
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(out, page.encode(), through_link=True)


def environment() -> jinja2.Environment:
    """Where the pages' templates are; all that is put into them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = _count
    environment.filters["head"] = lambda column: column.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")
    environment.globals["num_colors"] = NUM_COLORS
    return environment


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures at the top of a report: (label, value, note), those that are known."""
    summary = run.summary
    value, name, column = _objective(run)
    rate = summary.get("samples_per_sec")
    steps = f"{_count(summary.get('step'))} steps"
    figures = [
        (column, value, name),
        ("Training time", duration(_training_time(summary)), summary.get("hardware") or ""),
        ("Throughput", _count(rate), "samples per second"),
        ("Trained for", f"{_count(summary.get('epoch'))} epochs", steps),
        ("Parameters", _count(summary.get("num_parameters")), "in the encoder"),
        ("Training samples", _count(summary.get("num_train_samples")), "without labels"),
    ]
    return [tile for tile in figures if not tile[1].startswith(_MISSING)]


def _training_time(summary: Mapping[str, Any]) -> float | None:
    """Seconds of training alone, or of the whole run if that is all that is known."""
    seconds: float | None = summary.get("training_time_sec", summary.get("wall_time_sec"))
    return seconds


def _objective(run: Run) -> tuple[str, str, str]:
    """Value, split and plain words of a run's objective, on the test split if it was scored there; a dash if unknown."""
    named = run.config.get("objective")
    metrics = run.summary.get("metrics") or {}
    found = metrics.get(named)
    objective = run.summary.get("objective") or ({"name": named, "value": found} if found is not None else None)
    if not objective:
        return _MISSING, "", ""
    plain = re.sub("^(eval|test)/", "", objective["name"])
    metric = describe(plain, run.described)
    column = metric.column.removesuffix(", %")

    def shown(value: float | None) -> str:
        return metric.show(value) + (" %" if metric.percent and value is not None else "")

    split = "validation split" if objective["name"].startswith("eval/") else ""
    test = metrics.get(f"test/{plain}")
    if test is None:
        return shown(objective["value"]), split, column
    return shown(test), f"test split; {split}: {shown(objective['value'])}" if split else "test split", column


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The origin of a run, for anyone who wants to repeat it."""
    versions = summary.get("versions") or {}
    known = [
        ("Started", _time(summary.get("started"))),
        ("Hardware", summary.get("hardware")),
        ("Seed", summary.get("seed")),
        ("Commit", summary.get("commit")),
        *(("Changed", change) for change in summary.get("changes", [])),
        *((f"{name} version", version) for name, version in versions.items()),
    ]
    return [(name, str(value)) for name, value in known if value is not None]


def _count(value: float | None) -> str:
    """A count with thousands apart."""
    return _MISSING if value is None else f"{value:,.0f}"


def _time(text: str | None) -> str | None:
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return f"{time.day} {time:%B %Y, %H:%M %Z}".rstrip()
