"""What a process on Windows lacks, taken away from this one: names of POSIX, open folders, a wide encoding.

It is not Windows: torch and other libraries, which are imported before, paths and the file system are those of this machine.
"""

import os
import shutil
import signal
import sys
from importlib import import_module
from types import SimpleNamespace

NAMES = {
    os: ["chown", "fork", "getuid", "O_NOCTTY"],
    signal: ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM"],
}


def take_away():
    """From here on this process is as poor as one on Windows."""
    libraries = ["filelock", "lightning", "torch._dynamo", "torchvision", "matplotlib.pyplot", "sklearn.manifold"]
    for library in (*libraries, "sklearn.datasets", "transformers.models.bert.modeling_bert", "timm.layers.attention"):
        import_module(library)
    connector = import_module("lightning.pytorch.trainer.connectors.signal_connector")
    connector.signal = SimpleNamespace(**vars(signal))  # it asks for the platform, which is POSIX
    for module in ("fcntl", "resource"):
        sys.modules[module] = None
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    opened, killed, replaced = os.open, os.kill, os.replace
    held = {}

    def open_files_alone(path, flags, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        handle = opened(path, flags, *args, **kwargs)
        held[handle] = os.path.realpath(path)
        return handle

    def replace_closed(source, target, **kwargs):
        for handle, path in list(held.items()):
            if path == os.path.realpath(source) and os.path.exists(f"/proc/self/fd/{handle}"):
                assert os.path.realpath(f"/proc/self/fd/{handle}") != path, f"{path} is open while it is renamed"
        return replaced(source, target, **kwargs)

    def kill(pid, number):
        assert number != 0, "signal 0 is Ctrl-C on Windows"
        return killed(pid, number)

    shutil._use_fd_functions = False
    os.open, os.kill, os.replace = open_files_alone, kill, replace_closed
    import ssl_lab.locks

    ssl_lab.locks.is_windows = lambda: True


if __name__ == "__main__":
    take_away()
    from ssl_lab.cli.main import main

    sys.exit(main())
