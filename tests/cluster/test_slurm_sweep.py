"""Tasks of a job array that are preempted in their final evaluation, cancelled, or held by Slurm."""

import json
import subprocess
import sys
import time

SWEEP = [
    *(sys.executable, "-m", "ssl_lab.cli.main", "pretrain", "-m", "experiment=simclr_digits", "trainer=cpu"),
    *("data.batch_size=256", "encoder.widths=[4,8]", "method.hidden_dim=8", "trainer.max_epochs=2"),
    *("evaluation=features", "~evaluation.few_label", "~evaluation.linear", "objective=eval/knn/top1"),
    *("evaluate_every_n_epochs=1", "pictures_every_n_epochs=null", "trainer.log_every_n_steps=1"),
    *("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "sweep_dir=sweep"),
]


def until(true, what, seconds=120):
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, what()
        time.sleep(0.1)


def summaries(folder):
    found = (json.loads(path.read_text()) for path in folder.glob("sweep/*/summary.json"))
    return {summary["seed"]: summary for summary in found if "seed" in summary}


def test_tasks_that_are_preempted_in_the_final_evaluation_cancelled_and_held(slurm, tmp_path):
    slow = f"+evaluation.slow={{_target_: cluster.slow.SlowOnce, seconds: 90, marks: {tmp_path}}}"
    command = [*SWEEP, slow, "hydra.launcher.partition=scav"]
    with (tmp_path / "sweep.txt").open("w") as out:
        waits = subprocess.Popen([*command, "seed=1,2,3"], cwd=tmp_path, env=slurm.env, stdout=out, stderr=out)
    try:
        _disturb(slurm, tmp_path)
        assert waits.wait(200) == 1
    finally:
        waits.kill()
        waits.wait()
    printed = (tmp_path / "sweep.txt").read_text()
    assert "Traceback" not in printed
    table = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith("seed=")}
    assert [table[f"seed={seed}"][0] for seed in (1, 2, 3)] == ["finished", "cancelled", "finished"], printed
    assert "of 3 trials: seed=2 cancelled" in printed
    assert "1 of 3 trials were cancelled. Run the same command with the same sweep_dir= to resume them." in printed
    array = _array(tmp_path)
    assert f"seed=2: Job {array}_1 was cancelled. Log: " in printed
    assert "SIGTERM" not in printed.partition("1 of 3 trials were cancelled")[2], "the end of its life before"

    done = subprocess.run(
        [*command, "seed=1,2,3", "hydra.launcher.wait=false"],
        cwd=tmp_path,
        env=slurm.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "queued" in done.stdout
    assert summaries(tmp_path)[2]["status"] != "finished", "it does not wait"
    (job,) = slurm.jobs()
    assert slurm.wait(job) == "COMPLETED", _logs(tmp_path)

    first, second, third = (summaries(tmp_path)[seed] for seed in (1, 2, 3))
    for summary in (first, second, third):
        assert summary["status"] == "finished"
        assert summary["objective"]["value"] == summary["metrics"]["eval/knn/top1"]
        assert summary["metrics"].keys() == third["metrics"].keys()
        assert summary["training_time_sec"] > 0


def _array(folder):
    (script,) = list(folder.glob("sweep/slurm/*/*_submission.sh"))[:1]
    return script.parent.name


def _logs(folder):
    return "\n".join(f"{log}:\n{log.read_text()[-1500:]}" for log in folder.glob("sweep/slurm/*/*_log.out"))


def _disturb(slurm, folder):
    """Preempt the first two tasks in their final evaluation, hold the third, cancel the second in the queue."""

    def told():
        return (folder / "sweep.txt").read_text() + slurm("squeue", "-r", "-o", "%i %T %r") + _logs(folder)

    until(lambda: len(list(folder.glob("in_evaluation_*"))) == 3, told)
    array = _array(folder)
    slurm("scontrol", "requeuehold", f"{array}_2")
    urgent = slurm("sbatch", "--parsable", "--nodes=2", "--exclusive", "--wrap=sleep 4", cwd=folder)
    until(lambda: slurm.jobs().get(urgent) == "RUNNING", told)
    slurm("scancel", f"{array}_1")
    held = f"seed=3 does not start: Slurm holds job {array}_2"
    until(lambda: held in (folder / "sweep.txt").read_text(), told)
    assert f"Release it with: scontrol release {array}_2" in (folder / "sweep.txt").read_text()
    slurm("scontrol", "release", f"{array}_2")
