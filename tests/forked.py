"""``ssl-lab`` and the ranks of a run in forks of one process that has imported all they need: seconds of CPU less for each.

That process is not the one of the tests: what tests have changed in theirs is unknown to it.
"""

import atexit
import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["lightning", "matplotlib.pyplot", "sklearn.linear_model", "transformers.models.bert.modeling_bert"]
    + ["sklearn.datasets", "sklearn.manifold", "timm.layers.attention"]  # which a run imports on its way
    + [
        f"ssl_lab.{name}"
        for name in ("cli.pretraining", "cli.drawing", "cli.commands.finetune", "cli.build", "engine.pretrain")
    ]
)
OUTPUTS = tempfile.mkdtemp()
atexit.register(shutil.rmtree, OUTPUTS, ignore_errors=True)


class Fork:
    """A function in a process of its own; its output is kept. Behaves like :class:`subprocess.Popen`.

    Args:
        target: The function, importable by name.
        args: Its arguments.
        cwd: The folder that the process works in.
        env: The environment; that of the tests if None.
    """

    def __init__(self, target, *args, cwd=".", env=None):
        folder = Path(tempfile.mkdtemp(dir=OUTPUTS))
        self._paths = [folder / name for name in ("stdout", "stderr")]
        environment = dict(os.environ if env is None else env)
        self._process = CONTEXT.Process(target=_child, args=(target, args, str(cwd), environment, self._paths))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self._process.exitcode

    def output(self):
        """What it has printed to stdout and to stderr."""
        return [path.read_text() if path.exists() else "" for path in self._paths]

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.output()

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


def _child(target, args, cwd, environment, outputs):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout.reconfigure(line_buffering=True)
    target(*args)


def run_main(args):
    """``ssl-lab`` as the work of a process."""
    from ssl_lab.cli.main import main

    sys.argv = ["ssl-lab", *args]
    sys.exit(main())


def start(*args, cwd=".", env=None):
    """Start ``ssl-lab`` with these arguments."""
    return Fork(run_main, list(args), cwd=cwd, env=env)


def ssl_lab(*args, cwd=".", env=None, timeout=300):
    """Run ``ssl-lab`` to its end, as :func:`subprocess.run` would."""
    process = start(*args, cwd=cwd, env=env)
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)


def on_ranks(world, target, *args, timeout=600):
    """Call a function in as many processes as there are ranks, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked"}
    env |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0"}
    ranks = [Fork(target, *args, env={**env, "RANK": str(k), "LOCAL_RANK": str(k)}) for k in range(world)]
    end = time.monotonic() + timeout
    try:
        while any(rank.poll() is None for rank in ranks):
            failed = [rank for rank in ranks if rank.poll()]
            assert not failed, failed[0].output()[1][-3000:]
            assert time.monotonic() < end, f"{world} ranks were still running after {timeout} s"
            time.sleep(0.05)
        assert not any(rank.returncode for rank in ranks), [rank.output()[1][-3000:] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
