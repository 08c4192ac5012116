"""The page itself, and the folder of files that shows it without a server."""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssl_lab.extras import require
from ssl_lab.files import is_temporary, replace_file
from ssl_lab.report.dashboard.details import attempt, picture_file, read_details, report_of
from ssl_lab.report.dashboard.importance import importances
from ssl_lab.report.dashboard.index import RunIndex

STATIC = Path(__file__).parent / "static"
PLOTLY = "plotly.min.js"
PARTS = ("data", "runs")  # folders of a site that hold what is known of its runs
_RECEIVE = b"receive("
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Content security policy of the page: Plotly writes styles into it; nothing may come from elsewhere."""


def assets() -> dict[str, Path]:
    """Scripts and style sheets of the page by name.

    Raises:
        MissingPackageError: If plotly is not installed, whose package brings the JavaScript that draws.
    """
    require("draw the dashboard", "plotly")
    plotly = find_spec("plotly")
    assert plotly is not None and plotly.origin is not None
    own = {path.name: path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".svg")}
    return {**own, PLOTLY: Path(plotly.origin).parent / "package_data" / PLOTLY}


def page(mode: str) -> bytes:
    """The page that loads the rest; ``mode`` is ``served`` or ``static``."""
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    return text.replace("{{ mode }}", mode).replace("{{ policy }}", POLICY).encode()


def to_json(value: Any) -> bytes:
    """A value as compact ASCII JSON, which is also JavaScript."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str).encode()


def write_site(index: RunIndex, out: Path) -> Path:
    """Write the dashboard as files that a browser opens without a server; returns the page.

    Args:
        index: The runs.
        out: A folder, made if missing. Of an earlier site, files are replaced, and those of runs that are gone removed.

    Raises:
        MissingPackageError: If plotly is not installed.
        ValueError: If the folder holds something else or the runs themselves, or there is a site and no run.
    """
    found = assets()
    _check_is_ours(out, index)
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
        report = attempt(partial(report_of, entry.facts.path), "The report", details["problems"])
        details["report"] = report is not None
        if report is not None:
            replace_file(folder / "report.html", report, durable=False)
        else:
            (folder / "report.html").unlink(missing_ok=True)  # of an earlier site
        _write_data(out, f"run/{entry.id}", details)
    for scope, entries in index.scopes().items():
        objectives = {entry.objective for entry in entries if entry.objective}
        _write_data(out, f"importance/{scope}", {name: importances(entries, name) for name in sorted(objectives)})
    _forget(out, kept={entry.id for entry in index.entries}, scopes=set(index.scopes()))
    return replace_file(out / "index.html", page("static"), durable=False)


def _check_is_ours(out: Path, index: RunIndex) -> None:
    """Refuse a folder whose files are not those of a site, whose pages of other runs are removed."""
    if any(out.resolve() in (folder.resolve(), *folder.resolve().parents) for folder in index.folders):
        raise ValueError(f"Cannot write the dashboard to {out}: the runs lie in it. Give a folder beside them.")
    linked = [name for name in PARTS if (out / name).is_symlink()]
    if linked:
        raise ValueError(f"Cannot write the dashboard to {out}: {linked[0]} in it is a link. Give a new folder.")
    is_site = _is_data(out / "data" / "index.js", "index")
    if out.is_dir() and any(out.iterdir()) and not is_site and not _is_begun(out):
        raise ValueError(
            f"Cannot write the dashboard to {out}: this folder holds other files. Give an empty or a new one."
        )
    if is_site and not index.entries:
        raise ValueError(
            f"No runs are below {', '.join(map(str, index.folders))}: the site in {out} stays as it is. Give a folder that "
            "holds runs, or remove the site."
        )


def _is_begun(out: Path) -> bool:
    """Return whether the folder holds only the leftovers of a site killed before its first file was whole."""
    names = [path.name for path in out.iterdir()]
    return names == ["data"] and all(is_temporary(path.name, of="index.js") for path in (out / "data").iterdir())


def _forget(out: Path, *, kept: set[str], scopes: set[str]) -> None:
    """Remove what an earlier site has written of other runs and sweeps, and nothing else."""
    for part, known in (("run", kept), ("importance", scopes)):
        for path in (out / "data" / part).glob("*.js"):
            if path.stem not in known and _is_data(path, f"{part}/{path.stem}"):
                if part == "run":
                    shutil.rmtree(out / "runs" / path.stem, ignore_errors=True)
                path.unlink(missing_ok=True)


def _is_data(path: Path, name: str) -> bool:
    return path.is_file() and path.read_bytes().startswith(_RECEIVE + to_json(name))


def _copy(source: Path, target: Path) -> None:
    replace_file(target, source.read_bytes(), durable=False)


def _write_data(out: Path, name: str, value: Any) -> None:
    """As a script: a page opened from a file may run scripts beside it, but not read files."""
    path = out / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, _RECEIVE + to_json(name) + b"," + to_json(value) + b")", durable=False)
