"""Processes that were started from outside: their number, the name they share, and what they may not do."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import lightning as L
import pytest
import torch.distributed as dist
from hydra.types import RunMode
from omegaconf import OmegaConf

from ssl_lab.cli.commands import finetune
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.ranks import check_processes, refuse_ranks_in_sweep
from ssl_lab.cli.resume import is_first_rank
from ssl_lab.cli.run_name import RUN_NAME, claim, named_run, new_dir, removed_if_refused, run_name
from ssl_lab.cli.settings import compose_settings
from ssl_lab.runs.lock import lock_run

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
PLAIN = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}


@pytest.fixture
def env(monkeypatch):
    for name in {*TORCHRUN, *SLURM, *PLAIN, RUN_NAME}:
        monkeypatch.delenv(name, raising=False)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def trainer(devices=2, num_nodes=2):
    return L.Trainer(
        accelerator="cpu",
        devices=devices,
        num_nodes=num_nodes,
        strategy="ddp" if devices * num_nodes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
    )


@pytest.mark.parametrize("variables", [TORCHRUN, SLURM, PLAIN], ids=["torchrun", "slurm", "plain"])
def test_as_many_processes_as_were_started_are_accepted(variables, env):
    env(variables)
    check_processes(trainer())


@pytest.mark.parametrize(("devices", "num_nodes"), [(1, 1), (4, 1), (2, 1), (1, 4)])
@pytest.mark.parametrize("variables", [TORCHRUN, SLURM], ids=["torchrun", "slurm"])
def test_other_numbers_are_refused_with_the_right_ones(variables, devices, num_nodes, env):
    env({**variables, "SLURM_NTASKS_PER_NODE": str(devices)} if variables is SLURM else variables)
    with pytest.raises(
        ValueError, match=r"4 processes, 2 on each of 2 hosts.*Set trainer.devices=2 trainer.num_nodes=2"
    ):
        check_processes(trainer(devices, num_nodes))


def test_plain_variables_that_do_not_fit_are_refused(env, monkeypatch):
    env({**PLAIN, "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="WORLD_SIZE says 2 processes"):
        check_processes(trainer())
    env({**PLAIN, "LOCAL_RANK": "2"})
    with pytest.raises(ValueError, match=r"LOCAL_RANK=2 is not in 0 \.\.\. 1"):
        check_processes(trainer())
    env({**PLAIN, "NODE_RANK": "2"})
    with pytest.raises(ValueError, match=r"NODE_RANK=2 is not in 0 \.\.\. 1"):
        check_processes(trainer())
    env(PLAIN)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        check_processes(trainer())


def test_a_process_beside_the_tasks_of_a_job_is_refused(env, monkeypatch):
    env(SLURM)
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(ValueError, match="Start the command with srun"):
        check_processes(trainer())


def test_a_process_alone_has_the_time_of_day(env):
    assert run_name(["method=simclr"], sweep=False) is None


def test_a_requeued_job_finds_its_name_again_and_other_commands_have_others(env):
    env(SLURM)
    name = run_name(["method=simclr"], sweep=False)
    assert name == run_name(["method=simclr"], sweep=False)
    assert name.startswith("slurm_77_")
    assert name != run_name(["method=byol"], sweep=False)
    env({"SLURM_JOB_NAME": "interactive"})
    assert run_name(["method=simclr"], sweep=False) is None


def test_a_requeued_fine_tuning_finds_its_directory_again(env, monkeypatch):
    def directory(*args):
        monkeypatch.delenv(finetune._RUN_DIR, raising=False)
        return str(finetune._agreed_run_dir(compose_settings("finetune", [*args, "task=classification"]), list(args)))

    args = ["run=runs/a", "data=hub_text", "data.path=x.csv"]
    env(SLURM)
    assert re.fullmatch(r"runs/finetune/slurm_77_\w{6}", directory(*args)) and directory(*args) == directory(*args)
    assert directory(*args) != directory(*args, "seeds=[1]") and directory(*args, "run_dir=mine") == "mine"
    for name in SLURM:
        monkeypatch.delenv(name)
    env(PLAIN)
    with pytest.raises(ValueError, match="Give all of them the same run_dir="):
        directory(*args)


def test_ranks_of_torchrun_take_what_the_first_one_proposed(env):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))
    env({**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)})
    first = run_name([], sweep=False)
    assert store.get("ssl_lab/run_name").decode() == first
    store.set("ssl_lab/run_name", "earlier")  # as if another rank had come a second before
    assert run_name([], sweep=False) == "earlier"


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK"])
def test_plain_variables_need_a_directory(name, env):
    env({name: "0"})
    with pytest.raises(ValueError, match="Give all of them the same run_dir="):
        run_name([], sweep=False)
    with pytest.raises(ValueError, match="Give all of them the same sweep_dir="):
        run_name(["run_dir=x"], sweep=True)
    assert run_name(["run_dir=x"], sweep=False) is None
    assert run_name(["hydra.run.dir=x"], sweep=False) is None  # what Lightning tells the ranks that it starts
    env({RUN_NAME: "mine"})
    assert run_name([], sweep=False) == "mine"


def test_the_name_stands_for_the_time_of_day_in_the_configuration(env):
    OmegaConf.register_new_resolver("now", lambda pattern: "noon", replace=True)
    cfg = OmegaConf.create({"run_dir": "runs/${oc.env:SSL_LAB_RUN_NAME,${now:%Y-%m-%d_%H-%M-%S}}"})
    assert cfg.run_dir == "runs/noon"
    env(SLURM)
    with named_run(["a=1"], sweep=False):
        assert cfg.run_dir.startswith("runs/slurm_77_")
    assert cfg.run_dir == "runs/noon"


def test_runs_that_begin_in_one_second_have_directories_of_their_own(tmp_path, env):
    run_dir = tmp_path / "runs/a/noon"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, [run_dir] * 8))
    assert sorted(path.name for path in found) == ["noon", *(f"noon_{k}" for k in range(2, 9))]
    for args, is_by_time in ([], True), (["run_dir=x"], False):
        with named_run(args, sweep=False) as by_time:
            assert by_time is is_by_time
    env(SLURM)
    with named_run([], sweep=False) as by_time:
        assert not by_time, "a job that is queued again finds its directory"


def test_ranks_that_a_process_starts_find_its_directory(tmp_path, env):
    with new_dir(tmp_path) as first, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "1")  # which has its environment
        with new_dir(tmp_path) as of_rank:
            assert of_rank == first and os.environ[RUN_NAME] == first.name
        assert run_name([], sweep=False) == first.name
    with new_dir(tmp_path) as second:
        assert second != first
    assert RUN_NAME not in os.environ


def test_a_refused_run_leaves_the_directory_of_one_that_still_reads_its_data(tmp_path, env):
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match="Another process trains"), removed_if_refused(run_dir):
        other = lock_run(run_dir)
        lock_run(run_dir)
    assert run_dir.is_dir()
    other.release()
    with pytest.raises(ValueError, match="refused"), removed_if_refused(run_dir):
        raise ValueError("refused")
    assert not run_dir.exists()


def target(choice):
    return OmegaConf.load(config_dir() / f"hydra/{choice}.yaml")._target_


def test_sweeps_of_several_ranks(env):
    basic, slurm = "hydra._internal.core_plugins.basic_launcher.BasicLauncher", target("launcher/slurm")
    grid, other = target("sweeper/grid"), target("sweeper/optuna")
    ranks = trainer(2, 1)
    refuse_ranks_in_sweep(ranks, RunMode.RUN, launcher=basic, sweeper=grid)
    refuse_ranks_in_sweep(trainer(1, 1), RunMode.MULTIRUN, launcher=basic, sweeper=other)
    with pytest.raises(ValueError, match="cannot start 2 ranks itself"):
        refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN, launcher=basic, sweeper=grid)
    env({**TORCHRUN, "WORLD_SIZE": "2"})
    ranks = trainer(2, 1)
    refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN)
    refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN, launcher=basic, sweeper=grid)
    refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN, launcher=slurm, sweeper=other)
    with pytest.raises(ValueError, match="would start all trials by JoblibLauncher"):
        refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN, launcher="x.JoblibLauncher", sweeper=grid)
    with pytest.raises(ValueError, match="would ask OptunaSweeper for trials of its own"):
        refuse_ranks_in_sweep(ranks, RunMode.MULTIRUN, launcher=basic, sweeper=other)


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({**TORCHRUN, "RANK": "2"}, False),
        ({**PLAIN, "LOCAL_RANK": "0"}, False),
        ({**PLAIN, "LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"NODE_RANK": "1"}, False),
        ({**SLURM, "SLURM_PROCID": "3"}, False),
        (SLURM, True),
    ],
)
def test_one_process_of_all_is_the_first(variables, first, env):
    env(variables)
    assert is_first_rank() is first
