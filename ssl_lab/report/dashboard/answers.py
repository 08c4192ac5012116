"""Answers of the dashboard's server: only the page and the content of its runs, cached until something changes."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ssl_lab.limited import UnreadableFileError, read_bytes
from ssl_lab.report.dashboard.details import picture_file, read_details, report_of
from ssl_lab.report.dashboard.importance import importances
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.site import POLICY, assets, page, to_json

REFRESH_SEC = 2.0
"""Least time between two looks at the folders, however many pages are open."""
COST_SHARE = 0.1
"""Most of one processor that these looks and the new index take: behind a long one comes a long pause."""
_MAX_KEPT = 64  # details and importances
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
}
_OF_THE_PAGE = f"{POLICY}; frame-ancestors 'none'"  # which a page cannot say of itself
OF_A_RUN = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Security policy of what holds content of a run: no script runs."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Content with its type, security policy and tag."""

    content: bytes
    kind: str
    policy: str
    tag: str


class Answers:
    """Answers of one index to any number of pages.

    Args:
        index: The runs.

    Raises:
        MissingPackageError: If plotly is not installed.
    """

    def __init__(self, index: RunIndex) -> None:
        self.index = index
        self._assets = assets()
        self._looking, self._making, self._keeping = threading.Lock(), threading.Lock(), threading.Lock()
        self._looked, self._pause = time.monotonic(), 0.0
        self._kept: OrderedDict[tuple[Any, ...], Answer] = OrderedDict()

    def find(self, path: str, query: Mapping[str, list[str]]) -> Answer | None:
        """Find the answer that a path names; None if there is none."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match parts:
            case [""] | ["index.html"]:
                return self._once(("page",), lambda: page("served"), ".html", _OF_THE_PAGE)
            case ["assets", name] if name in self._assets:
                file = self._assets[name]
                return self._once(("assets", name), file.read_bytes, file.suffix, _OF_THE_PAGE)
            case ["data", *rest]:
                return self._data("/".join(rest), query)
            case ["runs", id, "report.html"]:
                return self._report(id)
            case ["runs", id, "pictures", name, file_name]:
                return self._picture(id, name, file_name)
        return None

    def _data(self, name: str, query: Mapping[str, list[str]]) -> Answer | None:
        if name == "index.json":
            return self._index()
        if match := re.fullmatch(r"run/(\w+)\.json", name):
            entry = self.index.find(match[1])
            if entry is None:
                return None
            return self._once(("run", entry.id, entry.version), lambda: to_json(read_details(entry)), ".json")
        if (match := re.fullmatch(r"importance/(\w+)\.json", name)) and "metric" in query:
            scope, metric = self.index.scopes().get(match[1]), query["metric"][0]
            if scope is None:
                return None
            key = ("importance", match[1], metric, self.index.generation)
            return self._once(key, lambda: to_json({metric: importances(scope, metric)}), ".json")
        return None

    def _index(self) -> Answer:
        """All runs, read again when due; requests during a reading get the previous answer."""
        known = self._get(("index",))
        is_due = time.monotonic() - self._looked >= max(REFRESH_SEC, self._pause)
        if known is not None and not (is_due and self._looking.acquire(blocking=False)):
            return known
        if known is None:
            self._looking.acquire()
        try:
            start, before = time.thread_time(), self.index.generation
            if is_due:
                self.index.refresh()
            if known is None or self.index.generation != before:
                known = self._keep(("index",), _answer(to_json(self.index.as_json()), ".json", OF_A_RUN))
            self._looked, self._pause = time.monotonic(), (time.thread_time() - start) / COST_SHARE
        finally:
            self._looking.release()
        return known

    def _report(self, id: str) -> Answer | None:
        """Rebuild the report from the run's data, as the file in its directory may hold anything."""
        entry = self.index.find(id)
        with self._making:
            content = None if entry is None else report_of(entry.facts.path)
        return None if content is None else _answer(content, ".html", OF_A_RUN)

    def _picture(self, id: str, name: str, file_name: str) -> Answer | None:
        entry = self.index.find(id)
        known = re.fullmatch(r"step_\d+\.png", file_name) and not re.search(r"[/\\\0]|^\.", name)
        if entry is None or not known:
            return None
        file = picture_file(entry.facts.path, name, file_name)
        return None if file is None else _read(file, entry.facts.path)

    def _once(self, key: tuple[Any, ...], make: Callable[[], bytes], suffix: str, policy: str = OF_A_RUN) -> Answer:
        """The answer that is kept under a key, made if there is none; one is made at a time."""
        if (known := self._get(key)) is not None:
            return known
        with self._making:
            return self._get(key) or self._keep(key, _answer(make(), suffix, policy))

    def _get(self, key: tuple[Any, ...]) -> Answer | None:
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[Any, ...], answer: Answer) -> Answer:
        with self._keeping:
            self._kept[key] = answer
            self._kept.move_to_end(key)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return answer


def _answer(content: bytes, suffix: str, policy: str) -> Answer:
    tag = f'"{hashlib.blake2s(content, digest_size=12).hexdigest()}"'
    return Answer(content=content, kind=_TYPES[suffix], policy=policy, tag=tag)


def _read(picture: Path, run_dir: Path) -> Answer | None:
    try:
        return _answer(read_bytes(picture, within=run_dir, max_bytes=64 << 20), ".png", OF_A_RUN)
    except (FileNotFoundError, UnreadableFileError):
        return None
