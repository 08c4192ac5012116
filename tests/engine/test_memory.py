"""Freed memory stays with the process: the same large tensor again brings no page faults. Each case in its own process."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from ssl_lab.engine.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(48 * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [faults() for _ in range(20)][-1]
keep_freed_memory()
print(usual, [faults() for _ in range(20)][-1])
"""


def page_faults(**variables):
    """Those of a large tensor before and after."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment | variables
    )
    return map(int, run.stdout.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_memory_is_kept_unless_the_user_has_set_malloc():
    usual, kept = page_faults()
    assert usual > 20  # 48 MiB, a fault for each page, or for each 2 MiB where the kernel gives large pages
    assert kept < usual / 10
    assert min(page_faults(MALLOC_ARENA_MAX="4")) > 20
