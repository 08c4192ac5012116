"""The page itself, and the folder of files that shows it without a server."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssl_lab.report.dashboard.details import picture_file, read_details, report_file
from ssl_lab.report.dashboard.importance import importances
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.files import replace_file

STATIC = Path(__file__).parent / "static"
PLOTLY = "plotly.min.js"


def assets() -> dict[str, Path]:
    """Scripts and style sheets of the page by name.

    Raises:
        ImportError: If plotly is not installed, whose package brings the JavaScript that draws.
    """
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise ImportError(
            "The dashboard draws with plotly, which is not installed: pip install 'ssl_lab[dashboard]'. "
            "ssl-lab runs and ssl-lab report do without it."
        )
    own = {path.name: path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".svg")}
    return {**own, PLOTLY: Path(found.origin).parent / "package_data" / PLOTLY}


def page(mode: str) -> bytes:
    """The page that loads the rest; ``mode`` is ``served`` or ``static``."""
    return (STATIC / "index.html").read_text(encoding="utf-8").replace("{{ mode }}", mode).encode()


def to_json(value: Any) -> bytes:
    """A value as compact JSON, in ASCII alone so that it is also JavaScript."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str).encode()


def write_site(index: RunIndex, out: Path) -> Path:
    """Write the dashboard as files that a browser opens without a server; returns the page.

    Args:
        index: The runs.
        out: A folder, made if missing. Files of an earlier site are replaced.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If the folder holds something else.
    """
    found = assets()
    if out.is_dir() and any(out.iterdir()) and not (out / "data" / "index.js").is_file():
        raise ValueError(
            f"The dashboard was to be written to {out}, but this folder holds other files. Give an empty or a new one."
        )
    _write_data(out, "index", index.as_json())  # first: by it a site is known again that was not finished
    for name, source in found.items():
        _copy(source, out / "assets" / name)
    for entry in index.entries:
        details = read_details(entry)
        folder = out / "runs" / entry.id
        for shown in details["pictures"]:
            for file in shown["files"].values():
                if source_file := picture_file(entry.facts.path, shown["name"], file):
                    _copy(source_file, folder / "pictures" / shown["name"] / file)
        if report := report_file(entry.facts.path):
            _copy(report, folder / "report.html")
        _write_data(out, f"run/{entry.id}", details)
    for scope, entries in index.scopes().items():
        objectives = {entry.facts.objective for entry in entries if entry.facts.objective}
        _write_data(out, f"importance/{scope}", {name: importances(entries, name) for name in sorted(objectives)})
    return replace_file(out / "index.html", page("static"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_data(out: Path, name: str, value: Any) -> None:
    """As a script: a page opened from a file may run scripts beside it, but not read files."""
    path = out / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, b"receive(" + to_json(name) + b"," + to_json(value) + b")")
