"""What the Slurm launcher decides before it asks Slurm; tests/cluster runs it."""

import pytest
from omegaconf import OmegaConf

from ssl_lab.cli.sweeps import slurm
from ssl_lab.cli.sweeps.grid import FailedTrialsError, Outcome, refuse_failures
from ssl_lab.cli.sweeps.slurm_queue import Notices, Queued
from ssl_lab.engine.checkpoints.signals import InterruptedRunError
from ssl_lab.runs.directory import update_summary


@pytest.mark.parametrize(
    ("accelerator", "devices", "gpus", "tasks", "gpus_asked"),
    [
        ("cpu", 2, None, 2, None),
        ("gpu", 4, None, 4, 4),
        ("gpu", [0, 1], None, 2, 2),
        ("gpu", "auto", 8, 8, 8),
        ("auto", "auto", None, 1, None),
        ("auto", -1, 2, 2, 2),
    ],
)
def test_a_node_runs_a_task_for_each_device(accelerator, devices, gpus, tasks, gpus_asked):
    trainer = OmegaConf.create({"accelerator": accelerator})
    found = slurm.resources(trainer, {"tasks_per_node": devices, "gpus_per_node": gpus})
    assert found == {"tasks_per_node": tasks, "gpus_per_node": gpus_asked}


def test_all_gpus_of_a_job_need_a_number():
    trainer = OmegaConf.create({"accelerator": "gpu"})
    with pytest.raises(ValueError, match="Set hydra.launcher.gpus_per_node"):
        slurm.resources(trainer, {"tasks_per_node": "auto", "gpus_per_node": None})


def test_a_machine_without_slurm_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no srun here"):
        slurm.submit(print, [], {"submitit_folder": str(tmp_path / "%j"), "timeout_min": 60}, None)


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ("PENDING", "JobHeldUser", "Slurm holds job 7_0 (JobHeldUser). Release it with: scontrol release 7_0"),
        ("PENDING", "launch failed requeued held", "holds job 7_0 (launch failed requeued held). Release it with"),
        ("PENDING", "PartitionNodeLimit", "does not start yet: job 7_0 waits (PartitionNodeLimit)."),
        ("PENDING", "Resources", None),
        ("PENDING", "JobArrayTaskLimit", None),
        ("RUNNING", "None", None),
    ],
)
def test_what_keeps_a_job_waiting_is_told_once_and_again_after_ten_minutes(state, reason, told):
    said, now = [], [0.0]
    notices = Notices(said.append, clock=lambda: now[0])
    for now[0] in (0.0, 5.0, 590.0, 601.0):
        notices.look({"7_0": Queued(state, reason), "8": Queued("PENDING", "JobHeldUser")}, {"7_0": "seed=1"}, {"7_0"})
    assert len(said) == (2 if told else 0)
    assert all(line.startswith("seed=1 ") and told in line for line in said)


def test_a_slurm_that_does_not_answer_is_not_waited_for_in_silence():
    said = []
    notices = Notices(said.append, clock=lambda: 3.0)
    notices.no_answer()
    notices.no_answer()
    assert said == ["squeue does not answer; the trials are waited for until it does."]


@pytest.mark.parametrize(
    ("state", "status", "error", "outcome", "told"),
    [
        ("CANCELLED", "preempted", "SIGTERM stopped the run at step 5.", "cancelled", "Job 7_0 was cancelled."),
        ("TIMEOUT", "preempted", "SIGUSR1 stopped the run.", "preempted", "Job 7_0 ended (TIMEOUT) before"),
        ("OUT_OF_MEMORY", "running", None, "failed", "Job 7_0 ended (OUT_OF_MEMORY) before the trial did."),
        ("FAILED", "failed", "Set data.path.", "failed", "Set data.path."),
        ("COMPLETED", "finished", None, "finished", None),
    ],
)
def test_how_a_job_ended_counts_before_what_its_run_said(state, status, error, outcome, told, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "last_state", lambda job: state)
    update_summary(tmp_path, status=status, error=error)
    trial = slurm.Trial(["seed=1"], "seed=1", 0, tmp_path, job="7_0")
    trial.look()
    assert trial.outcome.status == outcome
    assert (trial.outcome.error or "").startswith(told or "")
    assert (trial.outcome.error is None) == (told is None)


def test_cancelled_trials_are_named_beside_failed_ones_and_may_be_resumed():
    trials = [
        ("seed=1", Outcome(("seed=1",), "a", "cancelled", error="Job 7_0 was cancelled.")),
        ("seed=2", Outcome(("seed=2",), "b", "failed", error="Set data.path.")),
        ("seed=3", Outcome(("seed=3",), "c", "finished", 0.5)),
    ]
    with pytest.raises(InterruptedRunError) as stopped:
        refuse_failures(trials)
    assert str(stopped.value) == (
        "1 of 3 trials were cancelled. Run the same command with the same sweep_dir= to resume them.\n"
        "  seed=1: Job 7_0 was cancelled.\n1 of 3 trials failed:\n  seed=2: Set data.path."
    )
    assert stopped.value.status == "interrupted", "nothing to queue again"
    with pytest.raises(FailedTrialsError, match="1 of 2 trials failed"):
        refuse_failures(trials[1:])
