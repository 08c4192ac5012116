"""A server of the dashboard: reads only, gives no thread to a request that is not whole, and may ask for a token."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from ssl_lab.report.dashboard.answers import OF_A_RUN, Answer, Answers
from ssl_lab.report.dashboard.index import RunIndex

BACKLOG = 512
"""Connections that the system keeps until the server takes them."""
MAX_CONNECTIONS = 256
"""Open ones; beyond, the one that has been silent for longest is closed."""
HEAD_SEC, IDLE_SEC, SEND_SEC = 10.0, 60.0, 60.0
"""For a request to be whole, between two requests, and for 64 KiB of an answer to be taken."""
_MAX_HEAD = 16 << 10  # bytes of a request line with its headers
_NUM_THREADS = 4  # that make answers
_CHUNK = 64 << 10


@dataclass(frozen=True, kw_only=True)
class _Request:
    method: str
    target: str
    headers: dict[str, str]

    @property
    def stays_open(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


class _RefusedError(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Dashboard:
    """Serves an index of runs at an address; ``port`` 0 takes a free one.

    Args:
        index: The runs.
        host: A name or address to serve at.
        port: The port.
        token: What a browser must show once, in the address, to see anything; None for nothing.

    Raises:
        MissingPackageError: If plotly is not installed.
        OSError: If the address cannot be had.
    """

    def __init__(self, index: RunIndex, host: str, port: int, *, token: str | None = None) -> None:
        self.index = index
        self.token = token
        self.answers = Answers(index)
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if not 0 <= port <= 65535:
                raise OverflowError("ports go from 0 to 65535")  # noqa: TRY301 - the message is that of a port in use
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OSError(
                f"Cannot serve the dashboard at {host}:{port}: {reason}. "
                "Choose another port with --port, or 0 for any free one."
            ) from error
        self.server_address = self._socket.getsockname()
        self._loop = asyncio.new_event_loop()
        self._stopped, self._ended = asyncio.Event(), threading.Event()
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="dashboard")
        self._silent: dict[asyncio.StreamWriter, None] = {}  # connections that wait for a request, the longest first
        self._num_open = 0

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the address back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._socket.close()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it, with the token."""
        host = str(self.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        token = "" if self.token is None else f"?{urlencode({'token': self.token})}"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/{token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; browsers share cookies between the ports of a machine."""
        return f"ssl_lab_{self.server_address[1]}"

    def serve_forever(self) -> None:
        """Answer until :meth:`shutdown` or Ctrl-C."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            self._ended.set()

    def shutdown(self) -> None:
        """End :meth:`serve_forever`, from another thread, and wait until it has ended."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._ended.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_MAX_HEAD, backlog=BACKLOG)
        try:
            await self._stopped.wait()
        finally:
            server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._num_open += 1
        if self._num_open > MAX_CONNECTIONS and self._silent:
            next(iter(self._silent)).transport.abort()
        try:
            while self._num_open <= 2 * MAX_CONNECTIONS and await self._answer_one(reader, writer):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a page that was closed, a request that never became whole, or the server ends
        finally:
            self._num_open -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; whether the connection stays open."""
        self._silent[writer] = None
        method = "GET"
        try:
            first = await asyncio.wait_for(reader.readexactly(1), IDLE_SEC)
            request = _parsed(first + await asyncio.wait_for(_rest_of_head(reader), HEAD_SEC))
            method = request.method
            self._check(request)
            self._silent.pop(writer, None)
            answer, extra = await self._found(request)
        except _RefusedError as refused:
            await self._send(writer, refused.status, f"{refused}\n".encode(errors="replace"), method=method)
            return False
        finally:
            self._silent.pop(writer, None)
        if isinstance(answer, HTTPStatus):
            await self._send(writer, answer, b"", method=method, extra=extra)
            return request.stays_open
        if request.headers.get("if-none-match") == answer.tag:
            await self._send(writer, HTTPStatus.NOT_MODIFIED, b"", answer=answer, method=method)
            return request.stays_open  # a browser takes these headers over
        await self._send(writer, HTTPStatus.OK, answer.content, answer=answer, method=method, extra=extra)
        return request.stays_open

    def _check(self, request: _Request) -> None:
        if request.method not in ("GET", "HEAD"):
            raise _RefusedError(HTTPStatus.NOT_IMPLEMENTED, "The dashboard only reads: GET and HEAD.")
        if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "A request to read has no content.")
        if not self.allows(request.headers.get("host", "")):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This host name is not the dashboard's. Open it by its address.")

    async def _found(self, request: _Request) -> tuple[Answer | HTTPStatus, list[str]]:
        """The answer to a request, or a status without content, and further headers."""
        try:
            address = urlsplit(request.target)
            query = parse_qs(address.query, max_num_fields=50)
        except ValueError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if self.token is not None:
            shown = query.pop("token", [""])[-1]
            if self._is_token(shown):
                rest = urlencode(query, doseq=True)
                place = "/" + quote(address.path.lstrip("/"), safe="/%") + (f"?{rest}" if rest else "")
                cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
                return HTTPStatus.SEE_OTHER, [f"Location: {place}", f"Set-Cookie: {cookie}"]
            if not any(self._is_token(value) for value in _cookies(request.headers.get("cookie", ""), self.cookie)):
                raise _RefusedError(
                    HTTPStatus.FORBIDDEN,
                    "This dashboard asks for a token. Open the address that ssl-lab dashboard printed, ?token= included.",
                )
        work = self._loop.run_in_executor(self._threads, self.answers.find, address.path, query)
        try:
            found = await work
        except Exception as error:  # a folder that has gone, or what damaged files hold
            raise _RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}") from error
        if found is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "Nothing is here.")
        return found, []

    def _is_token(self, shown: str) -> bool:
        return self.token is not None and hmac.compare_digest(shown.encode(errors="replace"), self.token.encode())

    def allows(self, host: str) -> bool:
        """Return whether a request may name this host: an address or one of our names, not one made to lead here."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        status: HTTPStatus,
        content: bytes,
        *,
        method: str,
        answer: Answer | None = None,
        extra: list[str] | None = None,
    ) -> None:
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Server: ssl_lab",
            f"Content-Type: {'text/plain; charset=utf-8' if answer is None else answer.kind}",
            f"Content-Length: {len(content)}",
            f"Content-Security-Policy: {OF_A_RUN if answer is None else answer.policy}",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Cross-Origin-Resource-Policy: same-origin",
            "Cross-Origin-Opener-Policy: same-origin",
            "Cache-Control: no-cache",
            *([] if answer is None else [f"ETag: {answer.tag}"]),
            *(["Connection: close"] if status >= HTTPStatus.BAD_REQUEST else []),
            *(extra or []),
        ]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        body = memoryview(b"" if method == "HEAD" else content)
        for start in range(0, len(body), _CHUNK):
            writer.write(body[start : start + _CHUNK])
            await asyncio.wait_for(writer.drain(), SEND_SEC)
        await asyncio.wait_for(writer.drain(), SEND_SEC)


async def _rest_of_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        text = f"A request with its headers may have {_MAX_HEAD:,} bytes."
        raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text) from error


def _parsed(head: bytes) -> _Request:
    """A request of a line and headers.

    Raises:
        _RefusedError: If it is none.
    """
    first, *lines = head.decode("latin-1").strip("\r\n").split("\r\n")
    match = re.fullmatch(r"([A-Z]{1,20}) (\S+) HTTP/1\.[01]", first)
    pairs = [line.partition(":") for line in lines]
    if match is None or any(not re.fullmatch(r"[\w-]+", name, re.ASCII) or not colon for name, colon, _ in pairs):
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "This request cannot be understood.")
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if sum(name.lower() == "host" for name, _, _ in pairs) > 1:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "A request names one host.")
    return _Request(method=match[1], target=match[2], headers=headers)


def _cookies(header: str, name: str) -> list[str]:
    pairs = [part.strip().partition("=") for part in header.split(";")]
    return [value for key, _, value in pairs if key == name]
