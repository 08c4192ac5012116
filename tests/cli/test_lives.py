"""A run that was killed at any moment of its end leaves, after another life, what it would have left without."""

import csv
import json
import shutil
import subprocess

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_lab.cli import pretraining as commands
from ssl_lab.cli.main import main
from ssl_lab.engine import feature_map
from ssl_lab.engine import pretrain as engine
from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining
from ssl_lab.engine.callbacks.throughput import Throughput

FEW = (  # every second epoch, on data of its own
    "{_target_:ssl_lab.evaluation.on_data.OnData,name:few,every_n_epochs:2,"
    "protocol:{_target_:ssl_lab.evaluation.geometry.label_free.FeatureStd},"
    "data:{_target_:ssl_lab.data.image.digits.Digits,val_fraction:0.2}}"
)
ARGS = [
    *(
        "method=vae",
        "data=digits",
        "data.batch_size=400",
        "encoder.widths=[8,16]",
        "method.latent_dim=8",
        "trainer=cpu",
    ),
    *("evaluation=label_free", "callbacks=online_probes", "trainer.log_every_n_steps=1", "trainer.max_epochs=3"),
    *(f"+evaluation.few={FEW}", "save_every_n_steps=2", "objective=eval/rankme/rank", "logger=tensorboard"),
]
MOMENTS = {
    "in an epoch": (Throughput, "on_train_epoch_start", 3),
    "before the last validation": (EvaluateDuringTraining, "evaluate", 2),
    "before the baselines": (engine, "baseline_rows", 1),
    "after the results": (engine, "draw_feature_map", 1),
    "before the report": (commands, "_conclude", 1),
}
TIMES = ("wall_time_sec", "training_time_sec", "evaluation_time_sec", "samples_per_sec", "started")


@pytest.fixture(autouse=True, scope="module")
def no_map():
    """t-SNE takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_map, "projection", lambda x, y, names: None)
        yield


def copied_at_call(number, function, folder, name):
    """The function, which copies the run at its n-th call."""
    calls = []

    def copied(*args, **settings):
        calls.append(name)
        if len(calls) == number:
            subprocess.run(["cp", "-rp", folder / "peace", folder / name], check=True)
        return function(*args, **settings)

    return copied


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run in peace, and what lay on the disk at each moment of it: what kill -9 would have left."""
    folder = tmp_path_factory.mktemp("lives")
    with pytest.MonkeyPatch.context() as patch:
        for name, (owner, attribute, number) in MOMENTS.items():
            patch.setattr(owner, attribute, copied_at_call(number, getattr(owner, attribute), folder, name))
        assert main(["pretrain", *ARGS, f"run_dir={folder / 'peace'}"]) == 0
    return folder


def read(path):
    return json.loads(path.read_text())


def rows(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{name: row[name] for name in row if not name.startswith("perf/")} for row in csv.DictReader(file)]


def wanted(path):
    """Each life has a file of events of its own."""
    return path.is_file() and "tfevents" not in path.name


def scalars(run_dir):
    """What TensorBoard shows: of each scalar the steps and values."""
    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("perf/", "hp_metric"))]
    found = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}
    return {tag: list(dict.fromkeys(points)) for tag, points in found.items()}  # some are logged again as they were


def facts(summary):
    metrics = {name: value for name, value in summary["metrics"].items() if not name.startswith("perf/")}
    return {**{name: value for name, value in summary.items() if name not in TIMES}, "metrics": metrics}


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_lost(moment, runs, tmp_path):
    peace, run_dir = runs / "peace", tmp_path / "run"
    subprocess.run(["cp", "-rp", runs / moment, run_dir], check=True)
    assert main(["pretrain", *ARGS, f"run_dir={run_dir}"]) == 0
    before, after = read(peace / "summary.json"), read(run_dir / "summary.json")
    assert facts(after) == facts(before)
    assert before["metrics"].keys() == after["metrics"].keys()
    assert after["objective"]["value"] == after["metrics"]["eval/rankme/rank"] is not None
    assert read(run_dir / "evaluation.json") == read(peace / "evaluation.json")
    assert rows(run_dir) == rows(peace)
    assert scalars(run_dir) == scalars(peace)
    names = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if wanted(p)) for f in (run_dir, peace)]
    assert names[0] == names[1]
    assert after["started"] == before["started"]
    assert 0.2 < after["training_time_sec"] / before["training_time_sec"] < 20
    assert after["wall_time_sec"] > after["training_time_sec"] + after["evaluation_time_sec"] - 0.1
    assert after["samples_per_sec"] == pytest.approx(3 * 3 * 400 / after["training_time_sec"])
    state, whole = (torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (run_dir, peace))
    assert all(torch.equal(state[name], whole[name]) for name in whole)


def test_a_trial_killed_in_its_last_evaluation_has_its_objective(runs, tmp_path, capsys):
    """And finds it at each further start."""
    args = [*ARGS, "-m", "seed=0", f"sweep_dir={tmp_path}", "hydra.sweep.subdir=trial"]
    shutil.copytree(runs / "before the baselines", tmp_path / "trial")
    for _ in range(2):
        assert main(["pretrain", *args]) == 0
        out = capsys.readouterr().out
        assert f"{read(tmp_path / 'trial/summary.json')['metrics']['eval/rankme/rank']:.4f}" in out
