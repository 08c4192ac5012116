"""A Slurm of one's own: munged, slurmctld and two slurmd on loopback, for as long as the tests last.

No systemd, no cgroups, no accounting, no database, no root. Each of the two nodes, n1 and n2, believes that it has four
cores. There are two partitions: ``debug``, and below it ``scav``, whose jobs give way to those of ``debug`` and are put
back into the queue.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

NODES = ("n1", "n2")
ROOT = Path(__file__).parents[2]

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=debug Nodes=ALL Default=YES State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=scav Nodes=ALL State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
"""
# cred_expire is what a requeued job waits at least; its default of two minutes would be most of a test.


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Slurm:
    """A running cluster.

    Args:
        folder: Where it keeps its files and logs.

    Raises:
        RuntimeError: If it does not come up within half a minute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        host, (controller_port, *ports) = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000 State=UNKNOWN"
            for name, port in zip(NODES, ports, strict=True)
        )
        config = CONFIG.format(
            host=host, controller_port=controller_port, user=getpass.getuser(), folder=self.folder, nodes=nodes
        )
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"socket": "munge.socket", "key-file": key.name, "pid-file": "munged.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *options, name="munged")
        self._until((self.folder / "munge.socket").is_socket, "munged has no socket")
        self._daemon("slurmctld", "-D", name="slurmctld")
        for name in NODES:
            self._daemon("slurmd", "-D", "-N", name, name=name)
        self._until(
            lambda: self("sinfo", "-h", "-N", "-o", "%t", check=False).split() == ["idle"] * 2 * len(NODES),
            "the nodes are not idle",
        )

    def _daemon(self, *command: str, name: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(command, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self._daemons.append(process)

    def _until(self, true, problem: str, seconds: float = 30) -> None:
        start = time.monotonic()
        while not true():
            if time.monotonic() - start > seconds or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "\n".join(f"{log.name}: {log.read_text()[-800:]}" for log in self.folder.glob("*.out"))
                raise RuntimeError(f"Slurm did not come up: {problem}.\n{logs}")
            time.sleep(0.05)

    def __call__(self, *command: str | Path, check: bool = True, cwd: Path | None = None) -> str:
        """What a command, such as ``sbatch``, prints."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """State by id of every job that waits, runs or ends."""
        lines = self("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait(self, job: str, seconds: float = 120) -> str:
        """The state in which a job has ended."""
        start = time.monotonic()
        while job in self.jobs():
            assert time.monotonic() - start < seconds, self("scontrol", "show", "job", job)
            time.sleep(0.2)
        return self.fact(job, "JobState")

    def fact(self, job: str, name: str) -> str:
        """One of the facts that ``scontrol show job`` tells."""
        shown = self("scontrol", "show", "job", job)
        return next(word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}="))

    def stop(self) -> None:
        """End the jobs and these daemons, no others."""
        if len(self._daemons) == 2 + len(NODES):
            self("scancel", "--user", getpass.getuser(), check=False)
            start = time.monotonic()
            while self("squeue", "-h", check=False) and time.monotonic() - start < 15:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory):
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"There is no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge")
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


def alone() -> FileLock:
    """Held by one test on this machine at a time: its jobs should have the cores."""
    return FileLock(Path(tempfile.gettempdir()) / f"ssl_lab_slurm_{getpass.getuser()}.lock")


@pytest.fixture
def slurm(_cluster):
    """The cluster, for one test at a time."""
    with alone():
        yield _cluster
