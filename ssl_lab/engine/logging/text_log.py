"""Log of a run's messages, with times, in a text file of limited size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path
from typing import Any

from ssl_lab.engine.beginning import Beginning

LOG = logging.getLogger("ssl_lab")
RUN_LOG = "run.log"
_MOST_WAITING = 10_000


@contextmanager
def text_log(
    run_dir: Path, beginning: Beginning | None = None, *, max_bytes: int = 1_000_000, num_old: int = 2
) -> Iterator[None]:
    """Write ``run.log``: evaluations, all warnings, and an error with its traceback.

    A full file becomes ``run.log.1``, and that ``run.log.2``, so that all take ``(1 + num_old) * max_bytes`` at most.

    What a full disk has no room for is left out.

    Args:
        run_dir: The run directory.
        beginning: Lines wait for it; without it they are written at once.
        max_bytes: Size at which a new file is begun.
        num_old: Full files that are kept.
    """
    handler = _CarefulHandler(run_dir / RUN_LOG, maxBytes=max_bytes, backupCount=num_old, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    lines = MemoryHandler(_MOST_WAITING, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def write_lines() -> None:
        lines.setTarget(handler)
        lines.flush()
        lines.capacity = 1  # none waits any more

    (beginning or Beginning(run_dir)).do(write_lines)
    handlers: list[logging.Handler] = [lines] if logging.root.handlers else [lines, logging.lastResort or lines]
    show, level = warnings.showwarning, LOG.level

    def show_and_log(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        show(message, category, filename, lineno, file, line)
        LOG.handle(
            LOG.makeRecord(LOG.name, logging.INFO, filename, lineno, f"{category.__name__}: {message}", (), None)
        )

    for each in handlers:
        logging.root.addHandler(each)
    LOG.setLevel(logging.INFO)
    warnings.showwarning = show_and_log
    try:
        LOG.info("begins")
        yield
        LOG.info("has finished")
    except BaseException as error:
        LOG.info("ends: %s", error, exc_info=error)
        raise
    finally:
        warnings.showwarning = show
        LOG.setLevel(level)
        for each in handlers:
            logging.root.removeHandler(each)
        lines.close()
        handler.close()


class _CarefulHandler(RotatingFileHandler):
    """A handler that drops records it cannot write, such as on a full disk, instead of printing tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave the line out."""
