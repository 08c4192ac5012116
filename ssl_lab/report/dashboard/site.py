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
        out: A folder, made if missing. Of an earlier site, files are replaced, and those of runs that are gone removed.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If the folder holds something else, or the runs themselves.
    """
    found = assets()
    if any(out.resolve() in (folder.resolve(), *folder.resolve().parents) for folder in index.folders):
        raise ValueError(
            f"The dashboard was to be written to {out}, but the runs lie in it, and what is no page is removed there. Give "
            "a folder beside them."
        )
    if out.is_dir() and any(out.iterdir()) and not (out / "data" / "index.js").is_file():
        raise ValueError(
            f"The dashboard was to be written to {out}, but this folder holds other files. Give an empty or a new one."
        )
    written = {_write_data(out, "index", index.as_json())}  # first: by it a site is known again that was not finished
    for name, source in found.items():
        _copy(source, out / "assets" / name)
    for entry in index.entries:
        details = read_details(entry)
        folder = out / "runs" / entry.id
        for shown in details["pictures"]:
            for file in shown["files"].values():
                if source_file := picture_file(entry.facts.path, shown["name"], file):
                    written.add(_copy(source_file, folder / "pictures" / shown["name"] / file))
        if report := report_file(entry.facts.path):
            written.add(_copy(report, folder / "report.html"))
        written.add(_write_data(out, f"run/{entry.id}", details))
    for scope, entries in index.scopes().items():
        objectives = {entry.facts.objective for entry in entries if entry.facts.objective}
        found_importances = {name: importances(entries, name) for name in sorted(objectives)}
        written.add(_write_data(out, f"importance/{scope}", found_importances))
    for folder in (out / "data", out / "runs"):
        _keep_only(folder, written)
    return replace_file(out / "index.html", page("static"))


def _keep_only(folder: Path, kept: set[Path]) -> None:
    """Remove all other files below a folder, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds before itself
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


def _write_data(out: Path, name: str, value: Any) -> Path:
    """As a script: a page opened from a file may run scripts beside it, but not read files."""
    path = out / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(path, b"receive(" + to_json(name) + b"," + to_json(value) + b")")
