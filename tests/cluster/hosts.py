"""Two hosts in one machine: network namespaces with a cable between them; each sees its own interfaces alone."""

import os
import shutil
import subprocess
from contextlib import contextmanager

ADDRESSES = ("10.99.0.1", "10.99.0.2")
INTERFACE = "eth0"


def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True, timeout=30)


def why_not():
    """Why namespaces cannot be made here; empty if they can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ssl{os.getpid()}try"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr.strip()}"
    return ""


@contextmanager
def two_hosts():
    """Names of two namespaces whose only way to each other is ``INTERFACE``."""
    names = [f"ssl{os.getpid()}{letter}" for letter in "ab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ends = [("name", INTERFACE, "netns", name) for name in names]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", INTERFACE, "up")
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)
