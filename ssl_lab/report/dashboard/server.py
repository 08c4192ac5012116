"""A server of the dashboard: reads only, and nothing but the page and the files of runs that it lists."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ssl_lab.report.dashboard.details import picture_file, read_details, report_file
from ssl_lab.report.dashboard.importance import importances
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.site import assets, page, to_json

_REFRESH_SEC = 2.0  # between two looks at the folders, however many pages are open
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
}
# Plotly writes styles into the page; nothing may come from elsewhere.
_OF_THE_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OF_A_RUN = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Dashboard(ThreadingHTTPServer):
    """Serves an index of runs at an address; ``port`` 0 takes a free one.

    Raises:
        ImportError: If plotly is not installed.
        OSError: If the address cannot be had.
    """

    daemon_threads = True

    def __init__(self, index: RunIndex, host: str, port: int) -> None:
        self.index = index
        self.assets = assets()
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self._lock = threading.Lock()
        self._refreshed = time.monotonic()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OSError(
                f"The dashboard was to be served at {host}:{port}, but that cannot be had ({reason}). "
                "Choose another port with --port, or 0 for any free one."
            ) from error

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = str(self.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def allows(self, host: str) -> bool:
        """Whether a request may name this host: an address or one of our names, not one that was made to lead here."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[bytes, str, str] | None:
        """Content, type and security policy of what a path names; None if there is no such thing."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match parts:
            case [""] | ["index.html"]:
                return page("served"), ".html", _OF_THE_PAGE
            case ["assets", name] if name in self.assets:
                return self.assets[name].read_bytes(), self.assets[name].suffix, _OF_THE_PAGE
            case ["data", *rest]:
                value = self._data("/".join(rest), query)
                return None if value is None else (to_json(value), ".json", _OF_A_RUN)
            case ["runs", id, *rest]:
                file = self._file(id, rest)
                return None if file is None else (file.read_bytes(), file.suffix, _OF_A_RUN)
        return None

    def _data(self, name: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        if name == "index.json":
            with self._lock:
                if time.monotonic() - self._refreshed > _REFRESH_SEC:
                    self.index.refresh()
                    self._refreshed = time.monotonic()
            return self.index.as_json()
        if match := re.fullmatch(r"run/(\w+)\.json", name):
            entry = self.index.find(match[1])
            return None if entry is None else read_details(entry)
        if (match := re.fullmatch(r"importance/(\w+)\.json", name)) and "metric" in query:
            scope = self.index.scopes().get(match[1])
            return None if scope is None else {query["metric"][0]: importances(scope, query["metric"][0])}
        return None

    def _file(self, id: str, rest: list[str]) -> Path | None:
        entry = self.index.find(id)
        if entry is None:
            return None
        match rest:
            case ["report.html"]:
                return report_file(entry.facts.path)
            case ["pictures", name, file] if re.fullmatch(r"step_\d+\.png", file) and not re.search(
                r"[/\\\0]|^\.", name
            ):
                return picture_file(entry.facts.path, name, file)
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Dashboard

    def do_GET(self) -> None:
        if not self.server.allows(self.headers.get("Host", "")):
            self._send(HTTPStatus.FORBIDDEN, b"This host name is not the dashboard's. Open it by its address.\n")
            return
        try:
            address = urlsplit(self.path)
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, f"{error}\n".encode(errors="replace"))
            return
        try:
            found = self.server.answer(address.path, parse_qs(address.query))
        except Exception as error:  # a folder that has gone, or what damaged files hold
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"There is no such thing here.\n")
            return
        content, suffix, policy = found
        tag = f'"{hashlib.blake2s(content, digest_size=12).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(
                HTTPStatus.NOT_MODIFIED, b"", kind=_TYPES[suffix], policy=policy, tag=tag
            )  # a browser takes these over
            return
        self._send(HTTPStatus.OK, content, kind=_TYPES[suffix], policy=policy, tag=tag)

    do_HEAD = do_GET  # noqa: N815

    def _send(
        self,
        status: HTTPStatus,
        content: bytes,
        *,
        kind: str = "text/plain; charset=utf-8",
        policy: str = _OF_A_RUN,
        tag: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-cache")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if self.command != "HEAD" and content:
            self.wfile.write(content)

    def version_string(self) -> str:
        """Who serves, without versions."""
        return "ssl_lab"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
