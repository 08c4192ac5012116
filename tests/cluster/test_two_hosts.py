"""One run by two processes on two hosts: the losses of two processes on one host, and of one with the joined batch."""

import csv
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import forked
import pytest
from cluster.hosts import ADDRESSES, INTERFACE, two_hosts, why_not

from ssl_lab.cli.main import main

NUM_STEPS = 4
# Views that leave the image as it is: chance differs from rank to rank.
NO_CHANCE = [
    f"method.views.first.{name}"
    for name in (
        "crop_scale=[1,1]",
        "crop_ratio=[1,1]",
        "rotate_degrees=0",
        "shear_degrees=0",
        "brightness=0",
        "contrast=0",
    )
]
RUN = [
    "pretrain",
    "method=simclr",
    "views@method.views=digits",
    *NO_CHANCE,
    "method.hidden_dim=16",
    "encoder.widths=[8,16]",
    "evaluation=none",
    f"trainer.max_steps={NUM_STEPS}",
    "trainer.log_every_n_steps=1",
]
MODULE = ["-m", "ssl_lab.cli.main"]
ONE_OF_TWO = ["trainer=ddp_cpu", "data.batch_size=32"]


def start(command, cwd, **env):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*processes):
    """Wait for all; if one does not end, end all and what they have started."""
    try:
        results = [process.communicate(timeout=400) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        raise
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in results]


def losses(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        found = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(found) == NUM_STEPS
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Losses of two processes on one host, which the command starts itself."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start([sys.executable, *MODULE, *RUN, *ONE_OF_TWO, "run_dir=run"], folder))
    return losses(folder / "run")


def test_one_process_with_the_joined_batch(reference, tmp_path):
    assert main([*RUN, "trainer=cpu", "data.batch_size=64", f"run_dir={tmp_path / 'run'}"]) == 0
    assert losses(tmp_path / "run") == pytest.approx(reference, rel=1e-5)


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "two hosts can be made")
def test_two_hosts_by_torchrun(reference, tmp_path):
    """They agree on one directory by the time of day, and the first rank alone writes."""
    with two_hosts() as hosts:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        where = [f"--master-addr={ADDRESSES[0]}", "--master-port=29500"]
        outputs = finish(
            *(
                start(
                    ["ip", "netns", "exec", host, *torchrun, *where, f"--node-rank={rank}", *MODULE, *RUN, *ONE_OF_TWO]
                    + ["trainer.devices=1", "trainer.num_nodes=2"],
                    tmp_path,
                    GLOO_SOCKET_IFNAME=INTERFACE,
                )
                for rank, host in enumerate(hosts)
            )
        )
    (run_dir,) = tmp_path.glob("runs/simclr_digits/*")
    assert losses(run_dir) == pytest.approx(reference, rel=1e-6)
    assert "Run directory" in outputs[0]
    assert "Run directory" not in outputs[1]


def test_one_host_by_environment_variables(reference, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    command = [*RUN, *ONE_OF_TWO, "run_dir=run"]
    ranks = [forked.start(*command, cwd=tmp_path, env={**env, "LOCAL_RANK": str(rank)}) for rank in range(2)]
    try:
        assert [rank.wait(400) for rank in ranks] == [0, 0], [rank.output() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert losses(tmp_path / "run") == pytest.approx(reference, rel=1e-6)
