"""Processes of one run that were started from outside: what starts them, and how many."""

from __future__ import annotations

import os

import lightning as L
from hydra.types import RunMode
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment


def check_processes(trainer: L.Trainer) -> None:
    """Refuse another number of processes than was started, which would wait for each other forever, or train alone.

    Raises:
        ValueError: Naming both numbers, and what to set.
    """
    env = os.environ
    devices, nodes = trainer.num_devices, trainer.num_nodes
    asked = f"trainer.devices={devices} trainer.num_nodes={nodes}"
    if TorchElasticEnvironment.detect():
        world, per_node = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
        _compare("torchrun", world, per_node, world // per_node, devices, nodes)
    elif SLURMEnvironment.detect():
        world = int(env["SLURM_NTASKS"])
        if world > 1 and "SLURM_STEP_ID" not in env:
            raise ValueError(
                f"The Slurm job has {world} tasks, but this process is none of them. Start the command with srun, which "
                "starts one process per task."
            )
        hosts = int(env.get("SLURM_NNODES", 1))
        _compare("Slurm", world, world // hosts, hosts, devices, nodes)
    elif "LOCAL_RANK" in env:
        world = int(env.get("WORLD_SIZE", devices * nodes))
        _compare("WORLD_SIZE", world, world // nodes, nodes, devices, nodes)
        _check_rank("LOCAL_RANK", devices, asked)
    if nodes > 1 and isinstance(_cluster(trainer), LightningEnvironment):
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in env]
        if missing:
            raise ValueError(
                f"Cannot start on {nodes} hosts: {', '.join(missing)} is not set. Set "
                "MASTER_ADDR, MASTER_PORT and NODE_RANK on every host, or start the command with torchrun or srun."
            )
        _check_rank("NODE_RANK", nodes, asked)


def _cluster(trainer: L.Trainer) -> object:
    return getattr(trainer.strategy, "cluster_environment", None)


def _compare(launcher: str, world: int, per_node: int, hosts: int, devices: int, nodes: int) -> None:
    if (per_node * hosts, per_node, hosts) != (world, devices, nodes):
        raise ValueError(
            f"{launcher} says {world} processes, {per_node} on each of {hosts} hosts, but found "
            f"trainer.devices={devices} and trainer.num_nodes={nodes}. Set trainer.devices={per_node} "
            f"trainer.num_nodes={hosts} with trainer=ddp, ddp_cpu or fsdp2."
        )


def _check_rank(name: str, size: int, asked: str) -> None:
    rank = int(os.environ[name])
    if not 0 <= rank < size:
        raise ValueError(f"{name}={rank} is not in 0 ... {size - 1}, as {asked} asks for. Count from 0.")


def refuse_ranks_in_sweep(trainer: L.Trainer, mode: RunMode | None, *, launcher: str = "", sweeper: str = "") -> None:
    """Refuse several ranks in one of several trainings where these would not stay together.

    Each rank that was started from outside goes through the whole sweep itself. That is right if the sweep is a fixed list
    and its trials run in these very processes, and if a launcher starts the ranks of each trial anew.

    Args:
        trainer: The trial's trainer.
        mode: Whether this is a sweep.
        launcher: Class of Hydra's launcher; empty if trials run one after another in this process.
        sweeper: Class of Hydra's sweeper; empty for a fixed list.

    Raises:
        ValueError: If this is a sweep and each rank would start it again, or choose other trials.
    """
    if mode != RunMode.MULTIRUN or trainer.world_size == 1:
        return
    ranks = trainer.world_size
    if not _cluster(trainer).creates_processes_externally:  # type: ignore[attr-defined]
        raise ValueError(
            f"A sweep in this process cannot start {ranks} ranks itself: each rank would start the whole sweep again. Use "
            "trainer.devices=1, start the sweep with torchrun, or one command per run."
        )
    if launcher.endswith("SlurmLauncher"):  # which starts the ranks of each trial
        return
    if not launcher.endswith("BasicLauncher") and launcher:
        raise ValueError(
            f"Each of {ranks} ranks would start all trials by {launcher.rsplit('.', 1)[-1]}. Use hydra/launcher=basic, "
            "or hydra/launcher=slurm."
        )
    if sweeper and not sweeper.endswith("GridSweeper"):
        raise ValueError(
            f"Each of {ranks} ranks would ask {sweeper.rsplit('.', 1)[-1]} for trials of its own. Use "
            "hydra/launcher=slurm, or trainer.devices=1."
        )
