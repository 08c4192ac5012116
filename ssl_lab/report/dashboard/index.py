"""Index of all runs of the dashboard: facts, final metrics and settings, read again only where files have changed."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl_lab.limited import load_yaml, read_table
from ssl_lab.measured import way_of, with_way
from ssl_lab.metrics import Metric, described, joined
from ssl_lab.report.vocabulary import describe
from ssl_lab.runs.compare import NOT_CHOICES, flatten
from ssl_lab.runs.facts import RunFacts, is_stale, read_facts
from ssl_lab.runs.files import noted, number, number_in, read_descriptions, shortened
from ssl_lab.runs.find import find_runs
from ssl_lab.runs.ways import Measuring, measuring_in, ways_of

_WATCHED = (
    "summary.json", "heartbeat.json", "metrics.csv", "metrics.json", "evaluation.json", "report.html", "overrides.yaml",
)  # fmt: skip
_MAX_ERROR = 200  # characters of an error in the table; all of it is on the run's page
_MAX_COLUMNS = 500  # settings or metrics of one run: they are columns of the table of all
_MAX_VALUE = 2000  # characters of a setting
_Stamp = tuple[int, int] | None


@dataclass(kw_only=True)
class Entry:
    """One run as the index holds it.

    Attributes:
        id: Short digest of its place, the same wherever its folder lies.
        facts: What ``ssl-lab runs`` knows of it.
        place: Its directory below the folder that is searched.
        settings: Its configuration as dotted keys and texts.
        metrics: Final values, or the last logged ones before the end.
        objective: Name of its objective among the metrics.
        measuring: How it measures.
        logged: Names of the columns of ``metrics.csv``.
        descriptions: What its metrics mean, as in ``metrics.json``.
        version: Changes whenever one of its files does.
        config_problems: What was wrong with ``config.yaml``, as sentences.
        table_problems: What was wrong with ``metrics.csv``, as sentences.
        stamps: Time and size of each of its files.
    """

    id: str
    facts: RunFacts
    place: str
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    objective: str | None
    measuring: Measuring
    logged: Sequence[str]
    descriptions: Mapping[str, Any]
    version: str
    config_problems: Sequence[str]
    table_problems: Sequence[str]
    stamps: Mapping[str, _Stamp] = field(repr=False)

    @property
    def problems(self) -> list[str]:
        """Files that could not be read, as sentences."""
        found = [*self.facts.problems, *self.config_problems, *self.table_problems]
        return list(dict.fromkeys(found))


class RunIndex:
    """All runs at or below some folders; :meth:`refresh` reads those again whose files have changed.

    Args:
        folders: Where to look.

    Attributes:
        entries: All runs, the newest first. A metric that runs measured in different ways has a name for each way:
            ``test/knn/top1[num_neighbors=1]``.
        closed: Folders that cannot be opened, with the reason.
        generation: Changes whenever a run does.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.entries: list[Entry] = []
        self.closed: list[str] = []
        self.generation = 0
        self._by_path: dict[Path, Entry] = {}
        self.refresh()

    def refresh(self) -> int:
        """Bring the index up to date; returns how many runs were read."""
        root = Path(os.path.commonpath([folder.resolve() for folder in self.folders]))
        found: dict[Path, Entry] = {}
        num_read = 0
        closed: list[str] = []
        for path, sweep in find_runs(self.folders, closed):
            known = self._by_path.get(path)
            stamps = _stamps(path)
            if known is None or known.stamps != stamps or (known.facts.status == "running" and is_stale(known.facts)):
                known = _read_entry(path, sweep, root, stamps, known)
                num_read += 1
            found[path] = known
        is_new = num_read > 0 or found.keys() != self._by_path.keys()
        self.generation += is_new or closed != self.closed
        self._by_path, self.closed = found, closed
        if is_new:
            newest_first = sorted(found.values(), key=lambda entry: (-entry.facts.newest, str(entry.facts.path)))
            self.entries = _told_apart(newest_first)
        return num_read

    def find(self, id: str) -> Entry | None:
        """The run of an id."""
        return next((entry for entry in self._by_path.values() if entry.id == id), None)

    def as_json(self) -> dict[str, Any]:
        """Return the data of the table, the filters and the sweep views, in columns that name each value once."""
        entries = self.entries
        metrics = _names(entry.metrics for entry in entries)
        logged = _names(entry.logged for entry in entries)
        known = described(joined(entry.descriptions for entry in reversed(entries)))  # the newest last
        return {
            "folders": [str(folder) for folder in self.folders],
            "runs": [_row(entry) for entry in entries],
            "metrics": {name: [_rounded(entry.metrics.get(name)) for entry in entries] for name in metrics},
            "logged": {name: sum(name in entry.logged for entry in entries) for name in logged},
            "settings": _columns(entries),
            "not_choices": NOT_CHOICES,
            "described": {name: _described(name, known) for name in dict.fromkeys([*metrics, *logged])},
        }

    def scopes(self) -> dict[str, list[Entry]]:
        """Runs that may be analysed together, by the id of their sweep; ``all`` are all."""
        scopes: dict[str, list[Entry]] = {"all": self.entries}
        for entry in self.entries:
            if entry.facts.sweep is not None:
                scopes.setdefault(_sweep_id(entry), []).append(entry)
        return scopes


def choices_of(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that define a run, without its place and its seed."""
    return {
        key: text
        for key, text in settings.items()
        if key.split(".")[0] not in NOT_CHOICES and key.rsplit(".", 1)[-1] != "seed"
    }


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """The runs, with one name for each way in which a metric of a split was measured."""
    having: dict[str, list[int]] = {}
    for k, entry in enumerate(entries):
        for name in entry.metrics:
            if name.startswith(("eval/", "test/")) and not way_of(name):
                having.setdefault(name, []).append(k)
    renamed: dict[int, dict[str, str]] = {}
    for name, places in having.items():
        for k, way in zip(
            places, ways_of([entries[k].measuring for k in places], name, across_data=False), strict=True
        ):
            if way:
                renamed.setdefault(k, {})[name] = with_way(name, way)
    updated = list(entries)
    for k, names in renamed.items():
        metrics = {names.get(name, name): value for name, value in entries[k].metrics.items()}
        objective = names.get(entries[k].objective or "", entries[k].objective)
        updated[k] = replace(entries[k], metrics=metrics, objective=objective)
    return updated


def _read_entry(path: Path, sweep: Path | None, root: Path, stamps: Mapping[str, _Stamp], known: Entry | None) -> Entry:
    facts = read_facts(path, sweep)
    if known is not None and known.stamps["config.yaml"] == stamps["config.yaml"]:
        settings, problems, measuring = known.settings, known.config_problems, (facts.data, known.measuring[1])
    else:
        settings, problems, measuring = _read_settings(path / "config.yaml", facts.data)
    logged, last, damage = _last_values(path / "metrics.csv", values=facts.status != "finished")
    place = os.path.relpath(path.resolve(), root)
    digest = hashlib.blake2s(repr(sorted(stamps.items())).encode(), digest_size=5).hexdigest()
    return Entry(
        id=_digest(place),
        facts=facts,
        place=place,
        settings=settings,
        metrics=dict(list(({**last, **facts.metrics}).items())[-_MAX_COLUMNS:]),  # final values before logged ones
        objective=facts.objective,
        measuring=measuring,
        logged=logged,
        descriptions=read_descriptions(path, damage),
        version=f"{digest}{facts.status[0]}",
        config_problems=problems,
        table_problems=damage,
        stamps=stamps,
    )


def _stamps(path: Path) -> dict[str, _Stamp]:
    """Time and size of each file that is shown, and of the folders of pictures, whose times tell of new ones."""
    stamps = {name: _stamp(f"{path}/{name}") for name in ("config.yaml", *_WATCHED)}
    try:
        stamps |= {f"pictures/{f.name}": _stamp(f.path) for f in os.scandir(f"{path}/pictures") if f.is_dir()}
    except OSError:  # none yet
        pass
    return stamps


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read_settings(path: Path, data: str | None) -> tuple[dict[str, str], list[str], Measuring]:
    """The configuration as dotted keys and texts, its problems, and its way of measuring."""
    problems: list[str] = []
    config = noted(lambda: load_yaml(path, within=path.parent), problems, {})
    settings = flatten(config)
    if len(settings) > _MAX_COLUMNS:
        problems.append(f"{path.name} has {len(settings):,} settings; the first {_MAX_COLUMNS} are shown.")
    kept = list(settings.items())[:_MAX_COLUMNS]
    shown = {shortened(key): shortened(text, _MAX_VALUE) for key, text in kept}
    return shown, problems, measuring_in(data, config)


def _last_values(path: Path, *, values: bool) -> tuple[list[str], dict[str, float], list[str]]:
    """Columns of ``metrics.csv`` reduced to their last values, and the problems of the file."""
    last: dict[str, float] = {}
    columns: dict[int, str] = {}

    def read() -> None:
        rows = read_table(path, within=path.parent)
        head = [(k, name) for k, name in enumerate(next(rows, [])) if name not in ("", "step", "epoch")]
        columns.update((k, shortened(name)) for k, name in head[:_MAX_COLUMNS])
        for row in rows if values else ():
            for k, name in columns.items():
                if k < len(row) and row[k] and (value := number_in(row[k])) is not None:
                    last[name] = value

    problems: list[str] = []
    noted(read, problems, None)
    finite = {name: value for name, cell in last.items() if (value := number(cell)) is not None}
    return list(columns.values()), finite, problems


def _row(entry: Entry) -> dict[str, Any]:
    facts = entry.facts
    error = (facts.error or "").splitlines()
    return {
        "id": entry.id,
        "name": facts.name,
        "place": entry.place,
        "folder": facts.path.name,
        "sweep": None if facts.sweep is None else {"id": _sweep_id(entry), "name": facts.sweep.name},
        "status": facts.status,
        "method": facts.method,
        "data": facts.data,
        "encoder": facts.encoder,
        "seed": facts.seed,
        "step": facts.step,
        "epoch": facts.epoch,
        "speed": _rounded(facts.samples_per_sec),
        "objective": entry.objective,
        "value": _rounded(facts.value),
        "started": facts.started,
        "wall": _rounded(facts.wall_time_sec),
        "error": error[0][:_MAX_ERROR] if error and facts.status != "finished" else None,
        "damaged": len(entry.problems),
        "group": _digest(repr(sorted(choices_of(entry.settings).items()))) if entry.settings else entry.id,
        "version": entry.version,
    }


def _columns(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Settings by key: the distinct values, and the index of each run's value; -1 where it has none."""
    columns = {}
    for key in _names(entry.settings for entry in entries):
        texts = [entry.settings.get(key) for entry in entries]
        values = list(dict.fromkeys(text for text in texts if text is not None))
        place = {text: k for k, text in enumerate(values)}
        column: dict[str, Any] = {"values": values}
        if len(values) > 1 or None in texts:
            column["of"] = [-1 if text is None else place[text] for text in texts]
        columns[key] = column
    return columns


def _described(name: str, known: Mapping[str, Metric]) -> dict[str, Any]:
    metric = describe(re.sub("^(eval|test)/", "", name), known)
    return {"label": metric.column, "better": metric.better, "percent": metric.percent}


def _sweep_id(entry: Entry) -> str:
    return _digest(os.path.dirname(entry.place))


def _digest(text: str) -> str:
    return hashlib.blake2s(text.encode(errors="replace"), digest_size=5).hexdigest()


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _rounded(value: float | None) -> float | None:
    """Seven digits are more than a picture shows, and half as long in the file."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")
