"""Memory allocation of this process."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LIMITS = 2**30, 2**25  # bytes; older versions of glibc map anything above the second


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory, and serve tensors of up to 1 GiB from it (32 MiB before glibc 2.35).

    By default large tensors are mapped anew at each step and cleared by the kernel page by page, which takes as long as
    computing them: training on a CPU is up to 1.4 times faster with this. A user's own ``MALLOC_...`` variables win, and
    systems without glibc are left alone.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Both, or none: setting either alone freezes the other at its small default.
        if any(mallopt(_MMAP_THRESHOLD, limit) for limit in _LIMITS):
            mallopt(_TRIM_THRESHOLD, _LIMITS[0])
