"""Locks of open files, and the flags and calls around them that Windows lacks."""

from __future__ import annotations

import errno
import os
import sys

try:
    import fcntl
except ImportError:  # Windows
    HAS_LOCKS = False
else:
    HAS_LOCKS = True
"""Support of this system for locks of open files; file systems may lack locks all the same."""


def lock(handle: int, *, shared: bool = False) -> None:
    """Lock an open file until it is closed.

    Raises:
        OSError: If another process holds it, or the system or the file system has no locks (``ENOLCK``).
    """
    if not HAS_LOCKS:
        raise OSError(errno.ENOLCK, "This system has no locks of open files")
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def flags(*names: str) -> int:
    """Flags of ``os.open`` by name, without those that this system lacks; content is never changed on its way."""
    return getattr(os, "O_BINARY", 0) | sum(getattr(os, name, 0) for name in names)


def is_windows() -> bool:
    """Return whether folders cannot be opened, and signal 0 interrupts a process instead of looking for it."""
    return sys.platform == "win32"
