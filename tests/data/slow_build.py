"""Builds a cached folder slowly; run by several processes at once. Arguments: the log of builds."""

import sys
import time
from pathlib import Path

from ssl_lab.data.store import build_once

LOG = Path(sys.argv[1])


def build(folder):
    with LOG.open("a") as log:
        log.write("built\n")
    (folder / "first").write_text("1")
    time.sleep(0.5)
    (folder / "second").write_text("2")


print(sorted(path.name for path in build_once("shared", build).iterdir()))
