import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from cli.made_runs import OBJECTIVE, make_many, make_run

from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main
from ssl_lab.runs.directory import update_summary
from ssl_lab.runs.facts import read_facts
from ssl_lab.runs.find import read_runs


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def listed(capsys, *args):
    """The runs that the command lists as JSON, by name of their directory."""
    assert main(["runs", *map(str, args), "--json"]) == 0
    return {run["path"].rsplit("/", 1)[-1]: run for run in json.loads(capsys.readouterr().out)}


def test_facts_of_a_finished_run(tmp_path, capsys):
    make_run(tmp_path / "a", value=0.87, age=7200)
    run = listed(capsys, tmp_path)["a"]
    assert (run["status"], run["name"], run["seed"], run["step"], run["epoch"]) == (
        "finished",
        "simclr_digits",
        3,
        200,
        20,
    )
    assert (run["objective"], run["value"], run["samples_per_sec"], run["wall_time_sec"]) == (
        OBJECTIVE,
        0.87,
        1234.5,
        3600,
    )
    assert (run["sweep"], run["error"], run["problems"], run["path"]) == (None, None, [], str(tmp_path / "a"))
    assert run["metrics"]["test/linear/top1"] == pytest.approx(0.86)
    make_run(tmp_path / "b", experiment=None)
    assert listed(capsys, tmp_path)["b"]["name"] == "SimCLR / Digits / ConvNet"


def test_a_run_that_goes_on_is_known_by_its_heartbeat_and_its_curves(tmp_path, capsys):
    make_run(tmp_path / "a", status="running", value=0.5, beat=20, objective={"name": OBJECTIVE, "value": None})
    make_run(tmp_path / "b", status="running", value=0.6, beat=20)  # its objective stands in config.yaml alone
    runs = listed(capsys, tmp_path)
    assert [runs[name]["value"] for name in "ab"] == [0.5, 0.6]
    assert (runs["a"]["status"], runs["a"]["step"], runs["a"]["epoch"], runs["a"]["samples_per_sec"]) == (
        "running",
        210,
        21,
        99,
    )
    assert runs["a"]["wall_time_sec"] == pytest.approx(3600, abs=5)


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path / "summary.json", (then, then))


def test_stale_runs(tmp_path):
    old = make_run(tmp_path / "old", status="running", beat=400)
    assert read_facts(old).status == "running"  # its summary has just been written: it has begun again
    aged(old, 500)
    assert read_facts(old).status == "stale"
    silent = make_run(tmp_path / "silent", status="running")
    assert read_facts(silent).status == "running"
    aged(silent, 301)
    assert read_facts(silent).status == "stale"
    ended = make_run(tmp_path / "ended", status="failed", beat=4000, error="No space")
    aged(ended, 4000)
    assert read_facts(ended).status == "failed"


def test_a_run_of_this_host_without_its_lock_is_stale(tmp_path):
    here = make_run(tmp_path / "here", status="running", beat=1, host=socket.gethostname())
    assert read_facts(here).status == "running"  # there is no lock to ask
    with (here / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert read_facts(here).status == "running"
    assert read_facts(here).status == "stale"
    there = make_run(tmp_path / "there", status="running", beat=1)
    (there / ".lock").touch()
    assert read_facts(there).status == "running"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b'{"status": "finished", "step": 1'),
        ("summary.json", b""),
        ("summary.json", b"[1, 2]"),
        ("summary.json", b"\xff\xfe\x00"),
        ("summary.json", b"[" * 100_000),
        ("heartbeat.json", b"null"),
        ("config.yaml", b"\xff\xfe\x00objective"),
    ],
)
def test_damaged_files_are_counted(tmp_path, capsys, name, content):
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    (bad / "summary.json").write_text((bad / "summary.json").read_text().replace('"objective"', '"other"'))
    (bad / name).write_bytes(content)
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"1 run has files that could not be read, such as {bad}: {name}" in out
    assert "2 runs" in out and "1 finished" in out if name == "summary.json" else "2 finished" in out


def test_values_of_the_wrong_kind_are_no_values(tmp_path, capsys):
    bad = make_run(tmp_path / "bad")
    wrong = {
        "status": ["x"],
        "seed": "three",
        "step": {},
        "epoch": True,
        "objective": 5,
        "metrics": [1],
        "started": "soon",
    }
    (bad / "summary.json").write_text(json.dumps({**wrong, "method": 7, "error": 1, "samples_per_sec": float("nan")}))
    (bad / "metrics.csv").write_bytes(b"step,eval/linear/top1\n1,0.5\n2,abc\n\x00\xff,0.25\n3")
    run = listed(capsys, tmp_path)["bad"]
    assert run["status"] == "unknown"
    assert [run[key] for key in ("seed", "step", "epoch", "method", "error", "samples_per_sec", "started")] == [
        None
    ] * 7
    assert (run["objective"], run["value"]) == (OBJECTIVE, 0.25)
    assert main(["runs", str(tmp_path)]) == 0
    assert "1 unknown" in capsys.readouterr().out


def test_trials_of_a_sweep_stand_together(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for k, place in enumerate(["sweeps/s/lr=1", "x", "sweeps/s/lr=2", "mine/lr=3"]):
        make_run(tmp_path / place, age=100 * (k + 1))
    (tmp_path / "mine/multirun.yaml").touch()
    make_run(tmp_path / "sweeps/s/lr=4", age=1000, status="failed", error="Loss is NaN.\nMore")
    assert main(["runs", str(tmp_path)]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip("─ ")]
    last_words = [line.split()[-1] for line in lines[1:]]
    sweep, mine = str(tmp_path / "sweeps/s"), str(tmp_path / "mine")
    assert last_words[:8] == [sweep, "lr=1", "lr=2", "lr=4", "NaN.", str(tmp_path / "x"), mine, "lr=3"]
    assert "3 trials: 2" in lines[1] and lines[-1] == "5 runs: 4 finished, 1 failed."
    run = listed(capsys, tmp_path)["lr=3"]
    assert run["sweep"] == mine


def test_without_a_terminal_a_directory_is_never_wrapped(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    place = tmp_path / ("long" * 40) / ("name" * 40)
    make_run(place)
    for command in (["runs"], ["runs", "best", OBJECTIVE]):
        assert main([*command, str(tmp_path)]) == 0
        assert str(place) in capsys.readouterr().out


def test_trials_show_what_varies_in_their_sweep(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for k in range(3):
        overrides = ["experiment=simclr_digits", f"method.temperature=0.{k + 1}", f"seed={k % 2}", f"run_dir=/x/{k}"]
        make_run(tmp_path / "sweeps/s" / str(k), overrides=overrides, age=k)
    (tmp_path / "sweeps/s/2/overrides.yaml").write_text("[")
    make_run(tmp_path / "alone")
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "varies" in lines[0]
    shown = [line.split() for line in lines]
    assert [words[2] for words in shown if words and words[-1] in "01"] == [
        "temperature=0.1,seed=0",
        "temperature=0.2,seed=1",
    ]
    assert not any("temperature" in word for words in shown if words and words[-1] == "2" for word in words)


def test_filter_sort_and_limit(tmp_path, capsys):
    for k, status in enumerate(["finished", "failed", "preempted"]):
        make_run(tmp_path / status, status=status, age=100 * (k + 1), value=[0.2, 0.9, 0.5][k])
    assert list(listed(capsys, tmp_path)) == ["finished", "failed", "preempted"]
    assert list(listed(capsys, tmp_path, "--status", "failed")) == ["failed"]
    assert set(listed(capsys, tmp_path, "--status", "failed", "--status", "preempted")) == {"failed", "preempted"}
    assert list(listed(capsys, tmp_path, "--sort", "value")) == ["failed", "preempted", "finished"]
    assert list(listed(capsys, tmp_path, "--sort", "value", "--limit", "1")) == ["failed"]
    assert main(["runs", str(tmp_path), "--limit", "1"]) == 0
    assert "2 more are not shown" in capsys.readouterr().out
    assert main(["runs", str(tmp_path), "--status", "stale"]) == 0
    assert "0 runs here." in capsys.readouterr().out
    assert main(["runs", "--status", "lost"]) == 1
    assert "invalid choice: 'lost'" in capsys.readouterr().err


def test_best(tmp_path, capsys):
    odd = ["experiment=simclr_digits", "optim.lr=0.1", "run_dir=x", "ckpt=last", "data.root=a b", "seed=7"]
    make_run(tmp_path / "good", value=0.95, overrides=odd)
    make_run(tmp_path / "bad", value=0.2, start="pretrained")
    make_run(tmp_path / "unfinished", value=0.97, status="preempted")
    make_run(tmp_path / "without", value=float("nan"))
    assert main(["runs", "best", OBJECTIVE, str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert [row[1] for row in rows if row[:1] in (["1"], ["2"], ["3"]) and row[1] != "runs,"] == ["0.97", "0.95", "0.2"]
    assert "3 runs, highest first; 1 other has not measured it." in out
    assert main(["runs", "best", "test/linear/top1", str(tmp_path), "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "The best one again: ssl-lab pretrain experiment=simclr_digits optim.lr=0.1 'data.root=a b' seed=7\n" in out
    for args in (["test/linear/top1", "--min"], ["test/masked/perplexity"]):
        assert main(["runs", "best", *args, str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "lowest first" in out and "again: ssl-lab finetune experiment=simclr_digits seed=3\n" in out
    assert main(["runs", "best", "test/linear/top", str(tmp_path)]) == 1
    assert "Did you mean test/linear/top1?" in capsys.readouterr().err
    (tmp_path / "good/overrides.yaml").write_text("{[")
    assert main(["runs", "best", "test/linear/top1", str(tmp_path)]) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_a_loss_that_has_become_not_finite_is_no_value(tmp_path, capsys):
    make_run(tmp_path / "good", value=0.5)
    make_run(tmp_path / "diverged", value=0.9)
    for name, last in (("good", "2.0,"), ("diverged", "nan,")):
        (tmp_path / name / "metrics.csv").write_text(f"step,train/loss,other\n1,1.0,3\n2,{last}4\n3,,5\n")
    assert main(["runs", "best", "train/loss", str(tmp_path), "--min"]) == 0
    out = capsys.readouterr().out
    assert "1 run, lowest first; 1 other has not measured it." in out and str(tmp_path / "diverged") not in out


def test_which_folders_are_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 1
    assert "Cannot list runs below runs: there is no such folder" in capsys.readouterr().err
    make_run(tmp_path / "runs/finetune/pretrained/seed_0")
    make_run(tmp_path / "runs/a")
    make_run(tmp_path / "runs/a/checkpoints/copy")
    make_run(tmp_path / "runs/.hidden/b")
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/empty").mkdir()
    assert set(listed(capsys)) == {"a", "seed_0"}
    assert set(listed(capsys, "runs", "runs/a")) == {"a", "seed_0"}
    assert list(listed(capsys, "runs/a")) == ["a"]
    shutil.rmtree("runs")
    os.mkdir("runs")
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "0 runs here.\n"


def test_many_runs_are_read_in_a_moment_and_without_torch(tmp_path, capsys):
    make_many(tmp_path, 100)
    code = (
        f"import sys; from ssl_lab.cli.main import main; assert main(['runs', {str(tmp_path)!r}]) == 0; "
        f"assert main(['runs', 'best', 'test/linear/top1', {str(tmp_path)!r}]) == 0; "
        "slow = {'torch', 'lightning', 'hydra', 'omegaconf', 'matplotlib', 'numpy'} & set(sys.modules); assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "100 runs: " in done.stdout and "50 more are not shown" in done.stdout
    start = time.perf_counter()
    assert len(read_runs([tmp_path])) == 100
    assert time.perf_counter() - start < 2


def test_tab_completes():
    assert "best" in completions("ssl-lab runs b")
    assert "--status" in completions("ssl-lab runs --st")


def test_runs_that_measured_a_metric_in_different_ways_are_ranked_apart(tmp_path, capsys):
    for name, value, k, data, limit in (
        ("a", 0.9, 1, "val", 100),
        ("b", 0.8, 20, "val", 100),
        ("c", 0.7, 20, "val", 50),
        ("d", 0.6, 20, "other", 100),
    ):
        run = make_run(tmp_path / name)
        node = f"{{_target_: ssl_lab.evaluation.probes.knn.KNN, num_neighbors: [{k}]}}"
        with (run / "config.yaml").open("a") as file:
            file.write(f"evaluation:\n  knn: {node}\ndata:\n  path: {data}\n  batch_size: {k}\n")
            file.write(f"evaluate_max_train_samples: {limit}\n")
        update_summary(run, metrics={"eval/knn/top1": value, "test/knn/top1": value})
    for metric, num in (("eval/knn/top1", 4), ("test/knn/top1", 3)):
        assert main(["runs", "best", metric, str(tmp_path)]) == 0
        out = capsys.readouterr().out
        heads = [line for line in out.splitlines() if line.startswith(f"{metric}, num_neighbors=")]
        assert len(set(heads)) == num and f"measured in {num} ways" in out and "batch_size" not in out
        assert out.count("again: ssl-lab pretrain") == num
