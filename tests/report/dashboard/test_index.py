import json
import os
import random
import shutil
import time

import pytest
from cli.made_runs import OBJECTIVE, make_run
from fuzz.damage import KINDS, damaged
from report.dashboard.many_runs import configure
from report.fake_runs import write_picture, write_run

from ssl_lab.report.dashboard.details import read_details
from ssl_lab.report.dashboard.importance import importances
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.site import to_json, write_site
from ssl_lab.runs.directory import update_summary


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def row_of(index, folder):
    return next(row for row in index.as_json()["runs"] if row["folder"] == folder)


def test_the_index_tells_settings_and_metrics_by_columns(tmp_path):
    for k, lr in enumerate((0.1, 0.2, 0.1)):
        configure(make_run(tmp_path / f"run_{k}", value=0.1 * k, age=10 - k), seed=k, optim__lr=lr)
    told = RunIndex([tmp_path]).as_json()
    assert [row["folder"] for row in told["runs"]] == ["run_2", "run_1", "run_0"]
    assert told["settings"]["optim.lr"] == {"values": ["0.1", "0.2"], "of": [0, 1, 0]}
    assert told["settings"]["data.batch_size"] == {"values": ["256"]}
    assert told["metrics"][OBJECTIVE] == [0.2, 0.1, 0.0]
    assert told["logged"] == {"train/loss": 3, OBJECTIVE: 3}
    assert told["described"][OBJECTIVE] == {"label": "linear probe", "better": "higher", "percent": True}
    two, one, none = told["runs"]
    assert two["group"] == none["group"] != one["group"]  # equal but for the seed and the place
    assert len({row["id"] for row in told["runs"]}) == 3


def test_only_what_has_changed_is_read_again(tmp_path, monkeypatch):
    for k in range(4):
        make_run(tmp_path / f"run_{k}")
    index = RunIndex([tmp_path])
    assert index.refresh() == 0
    before = row_of(index, "run_2")
    write_picture(tmp_path / "run_2" / "pictures" / "views" / "step_00000100.png")
    assert index.refresh() == 1
    after = row_of(index, "run_2")
    assert before["version"] != after["version"] and before["id"] == after["id"]
    make_run(tmp_path / "run_4", status="running", beat=1)
    shutil.rmtree(tmp_path / "run_0")
    assert index.refresh() == 1 and len(index.entries) == 4
    assert index.refresh() == 0
    monkeypatch.setattr("ssl_lab.runs.facts.STALE_AFTER_SEC", 0.0)
    assert index.refresh() == 1  # one that runs has fallen silent without any change of its files
    assert row_of(index, "run_4")["status"] == "stale" and index.refresh() == 0


def test_a_run_that_falls_silent_becomes_stale(tmp_path):
    path = make_run(tmp_path / "run", status="running", beat=1)
    index = RunIndex([tmp_path])
    running = row_of(index, "run")
    assert index.entries[0].metrics["train/loss"] == pytest.approx(1 / 191)  # the last logged one
    then = time.time() - 1000
    (path / "heartbeat.json").write_text(json.dumps({"time": then, "step": 210}))
    os.utime(path / "summary.json", (then, then))
    index.refresh()
    assert (running["status"], row_of(index, "run")["status"]) == ("running", "stale")


def test_a_runs_id_does_not_depend_on_where_its_folder_lies(tmp_path):
    make_run(tmp_path / "here" / "a" / "run")
    ids = [RunIndex([tmp_path / "here"]).entries[0].id]
    (tmp_path / "here").rename(tmp_path / "there")
    assert [RunIndex([tmp_path / "there"]).entries[0].id] == ids


def test_details_of_a_finished_run(tmp_path):
    path = write_run(tmp_path / "run", sentences=True)
    details = read_details(RunIndex([tmp_path]).entries[0])
    assert details["command"] == "ssl-lab pretrain method=simclr trainer.max_epochs=100 adapt_to_data=false"
    assert (
        details["settings"]["method.temperature"] == "0.2" and details["config"] == (path / "config.yaml").read_text()
    )
    assert details["curves"]["train/loss"]["step"][-1] == 600 and details["samples_per_step"] == 256
    assert [picture["name"] for picture in details["pictures"]] == ["projection", "views"]
    assert details["pictures"][0]["files"][600] == "step_00000600.png"
    assert details["results"][0]["rows"][2]["name"] == "SimCLR encoder"
    assert (details["readings"][0]["last"]["num_right"], details["readings"][0]["last"]["num_hidden"]) == (6, 10)
    assert details["problems"] == []
    to_json(details)


@pytest.mark.parametrize(
    ("settings", "hardware", "samples"),
    [
        ({}, None, 256),
        ({"trainer__devices": "auto", "trainer__accumulate_grad_batches": 2}, "2 CPU threads (x86_64)", 512),
        ({"trainer__devices": "auto", "trainer__num_nodes": 2}, "4 x NVIDIA H100", 2048),
        ({"trainer__devices": [0, 1]}, "4 x NVIDIA H100", None),
        ({"data__batch_size": None}, None, None),
    ],
)
def test_samples_of_a_step(tmp_path, settings, hardware, samples):
    configure(make_run(tmp_path / "run", hardware=hardware), **settings)
    assert read_details(RunIndex([tmp_path]).entries[0])["samples_per_step"] == samples


def test_damaged_files_cost_a_run_some_cells_and_no_other_run_anything(tmp_path):
    whole = write_run(tmp_path / "whole", sentences=True)
    make_run(tmp_path / "other", status="running", beat=1)
    names = ["config.yaml", "overrides.yaml", "summary.json", "metrics.csv", "evaluation.json"]
    names += ["pictures/views/step_00000600.png", "pictures/masked_sentences/step_00000600.json"]
    rng = random.Random(0)
    told = 0
    for k in range(70):
        path = tmp_path / f"run_{k}"
        shutil.copytree(whole, path)
        file = path / names[k % len(names)]
        file.write_bytes(damaged(file.read_bytes(), KINDS[k // len(names) % len(KINDS)], rng))
    index = RunIndex([tmp_path])
    assert len(index.entries) == 72
    to_json(index.as_json())
    for entry in index.entries:
        details = read_details(entry)
        to_json(details)
        told += bool(details["problems"])
    assert told > 20
    assert row_of(index, "other")["damaged"] == row_of(index, "whole")["damaged"] == 0


@pytest.mark.parametrize(
    "evaluation", [{"rows": "x"}, {"rows": [{"name": "a", "metrics": {"knn/top1": "high"}}]}, {"rows": [None]}]
)
def test_an_evaluation_of_another_kind_is_named(tmp_path, evaluation):
    path = write_run(tmp_path / "run")
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    (path / "summary.json").write_text(json.dumps({"status": ["x"], "samples_per_sec": "fast", "error": {}}))
    details = read_details(RunIndex([tmp_path]).entries[0])
    assert details["results"] == [] and any("evaluation.json" in problem for problem in details["problems"])
    assert details["curves"]["train/loss"]["step"]


def test_the_setting_that_matters_has_the_largest_share(tmp_path):
    rng = random.Random(0)
    for k in range(40):
        lr, width, kind = rng.uniform(0.1, 1), rng.choice((32, 64)), rng.choice(("cosine", "linear"))
        run = make_run(tmp_path / "sweeps" / "s" / f"trial_{k}", value=1 - lr + 0.01 * rng.random())
        configure(run, seed=k, optim__lr=lr, optim__copy_of_lr=lr, encoder__width=width, optim__decay=kind)
    index = RunIndex([tmp_path])
    assert [len(runs) for runs in index.scopes().values()] == [40, 40]
    found = importances(index.entries, OBJECTIVE)
    assert found["num_runs"] == 40 and found["r2"] > 0.9
    first, *rest = found["settings"]
    assert first["key"] in ("optim.lr", "optim.copy_of_lr") and first["share"] > 0.9 and first["rho"] < -0.95
    assert {row["key"] for row in rest} == {"encoder.width", "optim.decay"}  # not the seed, not the place, no copy
    assert sum(row["share"] for row in found["settings"]) == pytest.approx(1)
    assert next(row for row in rest if row["key"] == "optim.decay")["rho"] is None


def test_of_many_settings_those_that_matter_are_kept(tmp_path):
    rng = random.Random(0)
    for k in range(30):
        lr = rng.uniform(0.1, 1)
        noise = {f"method__a{i}": rng.random() for i in range(40)}
        configure(make_run(tmp_path / f"run_{k}", value=1 - lr), **noise, optim__lr=lr)
    found = importances(RunIndex([tmp_path]).entries, OBJECTIVE)["settings"]
    assert len(found) == 20 and found[0]["key"] == "optim.lr" and found[0]["rho"] == pytest.approx(-1)


def test_importances_need_some_runs_that_differ(tmp_path):
    for k in range(8):
        configure(make_run(tmp_path / f"run_{k}", value=0.5), seed=k, optim__lr=k if k < 5 else 5)
    entries = RunIndex([tmp_path]).entries
    assert importances(entries[:5], OBJECTIVE)["settings"] == []
    assert importances(entries, OBJECTIVE)["settings"] == []  # all are equally good
    assert importances(entries, "no/such") == {"num_runs": 0, "needed": 6, "r2": None, "settings": []}


def test_a_setting_that_is_one_number_in_two_spellings_has_not_moved_anything(tmp_path):
    for k in range(8):
        configure(make_run(tmp_path / f"run_{k}", value=k / 10), seed=k, optim__lr=0.1 * k, clip=(1, 1.0)[k % 2])
    found = importances(RunIndex([tmp_path]).entries, OBJECTIVE)
    assert [row["key"] for row in found["settings"]] == ["optim.lr"]
    assert to_json(found)


def measured_with(path, value, *, num_neighbors, image_size=8):
    """A run that was judged with other settings of kNN, or on images of another size."""
    make_run(path, metrics={"test/knn/top1": value, "train/loss": value}, objective=None)
    nodes = f"evaluation:\n  knn: {{_target_: ssl_lab.evaluation.probes.knn.KNN, num_neighbors: {num_neighbors}}}\n"
    with (path / "config.yaml").open("a") as file:
        file.write(f"{nodes}data:\n  image_size: {image_size}\n  batch_size: {num_neighbors}\n")
    update_summary(path, metrics={"test/knn/top1": value}, objective={"name": "test/knn/top1", "value": value})


def test_values_that_were_measured_in_different_ways_are_in_different_columns(tmp_path):
    measured_with(tmp_path / "a", 0.9, num_neighbors=1)
    index = RunIndex([tmp_path])
    assert index.as_json()["metrics"]["test/knn/top1"] == [0.9]
    measured_with(tmp_path / "b", 0.8, num_neighbors=20)
    measured_with(tmp_path / "c", 0.7, num_neighbors=20)
    index.refresh()
    told = index.as_json()
    of_run = {row["folder"]: k for k, row in enumerate(told["runs"])}
    columns = {name: column for name, column in told["metrics"].items() if "knn" in name}
    one, twenty = "test/knn/top1[num_neighbors=1]", "test/knn/top1[num_neighbors=20]"
    assert columns.keys() == {one, twenty}  # the size of a batch changes no score
    assert [columns[one][of_run[name]] for name in "abc"] == [0.9, None, None]
    assert [columns[twenty][of_run[name]] for name in "abc"] == [None, 0.8, 0.7]
    assert told["runs"][of_run["a"]]["objective"] == one and told["described"][one]["percent"]
    assert importances(index.entries, twenty)["num_runs"] == 2
    for name in "bc":
        shutil.rmtree(tmp_path / name)
    index.refresh()
    assert index.as_json()["metrics"]["test/knn/top1"] == [0.9]  # nothing is left to tell it from
    measured_with(tmp_path / "d", 0.6, num_neighbors=1, image_size=16)
    index.refresh()
    sizes = {name for name in index.as_json()["metrics"] if "knn" in name}
    assert sizes == {f"test/knn/top1[data.image_size={size}]" for size in (8, 16)}
    out = write_site(index, tmp_path / "site").parent
    assert all(name.encode() in (out / "data/index.js").read_bytes() for name in sizes)


def test_data_of_another_title_is_another_row_and_not_another_column(tmp_path):
    measured_with(tmp_path / "a", 0.9, num_neighbors=1)
    measured_with(tmp_path / "b", 0.8, num_neighbors=1, image_size=32)
    update_summary(tmp_path / "b", data="CIFAR10")
    told = RunIndex([tmp_path]).as_json()["metrics"]
    assert sorted(told["test/knn/top1"]) == [0.8, 0.9]
