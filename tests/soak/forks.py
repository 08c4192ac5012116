"""One warm process whose forks run ssl-lab commands, and die at a chosen moment of their work with files."""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

MODULES = (
    "lightning",
    "matplotlib.pyplot",
    "datasets",
    "pyarrow.parquet",
    "safetensors.torch",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.metrics",
    "timm.layers.attention",
    "tokenizers",
    "transformers",
    "transformers.models.bert.modeling_bert",
    "ssl_lab.cli.pretraining",
    "ssl_lab.cli.commands.dashboard",
    "ssl_lab.cli.commands.reconstruct",
    "ssl_lab.cli.commands.export",
    "ssl_lab.cli.commands.finetune",
    "ssl_lab.cli.commands.leaderboard",
    "ssl_lab.cli.commands.report",
    "ssl_lab.cli.commands.sample",
    "ssl_lab.export.transformers",
    "ssl_lab.export.graph",
    "ssl_lab.export.timm",
)
"""What commands import on the way; forks find it done."""

_PATHS = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
}
"""Audit events that change files, and which of their arguments are paths."""

_FOLDERS = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.chmod": 2}
"""Which argument is the descriptor of the folder that a relative path counts from."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Ended:
    """How a fork has ended: its exit code (negative: the signal), what it printed, and what it changed."""

    code: int
    output: str
    events: list[str]
    seconds: float


def warm_up():
    """Import what commands need, with one thread of computing: forks of a process with more would hang."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in MODULES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)


class Life:
    """A fork that runs ``ssl-lab`` with these arguments in the folder ``cwd``.

    Args:
        args: The command, without ``ssl-lab``; or a function, which is called instead.
        cwd: The folder it runs in.
        kill_at: The change of files, from 1 on, before which the fork gets the signal; None for none.
        number: The signal. SIGKILL goes to all processes that the fork has started.
        root: Changes below this folder count; ``cwd`` by default.
    """

    def __init__(self, args, cwd, *, kill_at=None, number=signal.SIGKILL, root=None):
        sys.stdout.flush()
        self._output, self._events = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            root = os.path.realpath(root or cwd)
            _child(args, cwd, self._output.fileno(), self._events.fileno(), root, kill_at, number)

    def wait(self, seconds):
        """How it has ended; None if it still runs after this time."""
        end = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                lasted = time.monotonic() - self._began
                return Ended(
                    os.waitstatus_to_exitcode(status), _text(self._output), _text(self._events).splitlines(), lasted
                )
            if time.monotonic() > end:
                return None
            time.sleep(0.01)

    def send(self, number):
        """Send a signal to it; SIGKILL also to all that it has started."""
        with contextlib.suppress(ProcessLookupError):  # nothing of it may be left
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def end(self, seconds=300):
        """How it ends.

        Raises:
            AssertionError: If it hangs.
        """
        ended = self.wait(seconds)
        if ended is None:
            self.send(signal.SIGKILL)
            told = self.wait(60).output
            raise AssertionError(f"A command was still running after {seconds} s:\n{told[-2000:]}")
        return ended


def run(args, cwd, **settings):
    """How ``ssl-lab`` with these arguments ends; ``settings`` as of :class:`Life`."""
    return Life(args, cwd, **settings).end()


def _text(file):
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def _child(args, cwd, output, events, root, kill_at, number):
    """Never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(cwd)
        os.environ["SSL_LAB_CACHE"] = os.environ.get("SOAK_CACHE") or f"{cwd}/cache"
        from ssl_lab.cli.main import main

        sys.argv = ["ssl-lab", *([] if callable(args) else args)]
        sys.addaudithook(_Hook(root, events, kill_at, number))
        code = args() if callable(args) else main(args)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(int(code or 0))


class _Hook:
    """Counts changes of files below a folder, and sends a signal before one of them."""

    def __init__(self, root, events, kill_at, number):
        self.root = root
        self.prefix = root + os.sep
        self.events = events
        self.kill_at = kill_at
        self.number = number
        self.count = 0
        self.pid = os.getpid()

    def __call__(self, event, args):
        if event not in _PATHS or os.getpid() != self.pid:
            return
        if event == "open" and not self._writes(*args[1:3]):
            return
        paths = [self._path(args[k], args, event) for k in _PATHS[event]]
        if not any(path.startswith(self.prefix) for path in paths):
            return
        self.count += 1
        shown = " -> ".join(path.removeprefix(self.prefix) for path in paths)
        os.write(self.events, f"{event} {shown}\n".encode())
        if self.count == self.kill_at:
            if self.number == signal.SIGKILL:
                os.killpg(0, signal.SIGKILL)
                time.sleep(60)  # the signal is on its way; the change must not take place
            os.kill(self.pid, self.number)

    @staticmethod
    def _writes(mode, flags):
        if isinstance(mode, str):
            return any(letter in mode for letter in "wax+")
        return isinstance(flags, int) and bool(flags & _WRITES)

    def _path(self, path, args, event):
        if isinstance(path, int):
            return ""
        path = os.fsdecode(path)
        if os.path.isabs(path):
            return os.path.normpath(path)
        place = _FOLDERS.get(event)
        descriptor = args[place] if place is not None and place < len(args) else -1
        if isinstance(descriptor, int) and descriptor >= 0:
            return os.path.normpath(os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path))
        return os.path.normpath(os.path.join(os.getcwd(), path))


def fresh(template, folder):
    """Make ``folder`` a copy of ``template``; an empty folder if that is None."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    if template is None:
        Path(folder).mkdir(parents=True)
    else:
        shutil.copytree(template, folder, symlinks=True)
