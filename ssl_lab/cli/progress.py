"""Progress of a command: a bar on a terminal; elsewhere a line after ten seconds, then each minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_LINE_SEC, _LINE_SEC = 10.0, 60.0


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Within it, call the function with the number of samples that were done since the last call.

    Args:
        total: Number of all samples.
        what: What they are called.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda number: progress.advance(bar, number)
        return
    start = time.monotonic()
    due, done = start + _FIRST_LINE_SEC, 0

    def lines(number: int) -> None:
        nonlocal due, done
        done += number
        now = time.monotonic()
        if now >= due and done < total:
            left = (total - done) * (now - start) / max(done, 1)
            print(f"{done:,} of {total:,} {what}, about {left:.0f} s left", flush=True)
            due = now + _LINE_SEC

    yield lines
