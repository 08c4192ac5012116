"""``ssl-lab dashboard``."""

from __future__ import annotations

import argparse
import os
import secrets
import time
from pathlib import Path

from ssl_lab.cli.arguments import Parser, path_argument


def run(args: list[str]) -> int:
    """Serve all runs below some folders as a page, or write the page as files."""
    parser = Parser(
        prog="ssl-lab dashboard",
        description="Watch and compare runs in a browser. Nothing leaves this machine.",
    )
    parser.add_argument("folders", nargs="*", type=path_argument, metavar="DIR", help="where to look (default: runs)")
    parser.add_argument(
        "--out", type=path_argument, metavar="FOLDER", help="write a static site there instead of serving"
    )
    parser.add_argument("--port", type=int, default=8787, help="port to serve at; 0 for a free one (default: 8787)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument(
        "--token",
        action=argparse.BooleanOptionalAction,
        help="ask for a token; the printed address contains it (default: if other machines can reach the page, "
        "or other users over SSH or in a Slurm job)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parsed = parser.parse_intermixed_args(args)
    from ssl_lab.limited import printable
    from ssl_lab.outputs import check_output
    from ssl_lab.report.dashboard.index import RunIndex
    from ssl_lab.report.dashboard.server import Dashboard
    from ssl_lab.report.dashboard.site import assets, write_site

    if parsed.out is not None:
        check_output(parsed.out, folder=True, setting="--out")
    assets()  # report what is missing before runs are read
    start = time.perf_counter()
    index = RunIndex(parsed.folders or [Path("runs")])
    num = len(index.entries)
    print(f"{num:,} run{'s' * (num != 1)} read in {time.perf_counter() - start:.1f} s.", flush=True)
    if parsed.out is not None:
        written = write_site(index, parsed.out)
        print(f"Written to {written}. It opens in a browser as it is, or from any web host.")
        _open(written.resolve().as_uri(), parsed.open)
        return 0
    if index.closed:
        print(printable(f"{len(index.closed):,} folders cannot be opened, such as {index.closed[0]}.", keep=""))
    is_local = parsed.host in ("127.0.0.1", "localhost", "::1")
    is_shared = any(name in os.environ for name in ("SSH_CONNECTION", "SLURM_JOB_ID"))
    asks = parsed.token if parsed.token is not None else is_shared or not is_local
    with Dashboard(index, parsed.host, parsed.port, token=secrets.token_urlsafe(24) if asks else None) as server:
        print(f"Dashboard: {server.url} (Ctrl-C ends it)", flush=True)
        if not asks:
            who = "is logged in to" if is_local else "can reach"
            print(f"Everyone who {who} this machine can read these runs, as no token protects them.", flush=True)
        if asks and parsed.open:
            print(
                "Open this address yourself. If ssl-lab opened it, other users could see the token in the "
                "browser's command line.",
                flush=True,
            )
        else:
            _open(server.url, parsed.open)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _open(url: str, wanted: bool) -> None:
    if wanted:
        import webbrowser

        webbrowser.open(url)
