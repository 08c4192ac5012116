"""Studies: trials handed out once over workers, deaths and restarts; pruning; what is refused."""

import re
import signal
import time
from collections import Counter

import optuna
import pytest
from forked import start
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_lab.cli.main import main
from ssl_lab.cli.sweeps.grid import Outcome
from ssl_lab.cli.sweeps.optuna_sweeper import suggestion
from ssl_lab.cli.sweeps.study import SharedStudy, open_storage, reporter
from ssl_lab.runs.directory import read_json

SMALL = [
    *("data.batch_size=512", "encoder.widths=[8,16]", "method.hidden_dim=16", "trainer=smoke"),
    *("evaluation=label_free", "objective=eval/rankme/rank", "evaluate_every_n_epochs=1"),
]
SEARCH = ["hydra/sweeper=optuna", "sweep_dir=sweep", "optim.lr=tag(log,interval(1e-4,1e-2))"]


def sweep(*args):
    return main(["pretrain", "-m", *SMALL, *SEARCH, *args])


def trials(folder):
    return optuna.load_study(study_name="pretrain", storage=open_storage(f"sqlite:///{folder}/sweep/study.db")).trials


def states(folder):
    return [trial.state.name for trial in trials(folder)]


def directories(folder):
    return [path.parent for path in (folder / "sweep").glob("*/summary.json")]


def worker(folder, num_trials=3):
    def open_study():
        storage = open_storage(f"sqlite:///{folder}/study.db")
        return optuna.create_study(study_name="s", storage=storage, load_if_exists=True)

    space = [lambda trial: trial.suggest_float("x", 0, 1)]
    timing = {"heartbeat_sec": 0.05, "lost_after_sec": 60.0}
    return SharedStudy(open_study, folder / "study.lock", space, num_trials=num_trials, **timing)


def finished(value=1.0):
    return Outcome((), "run", "finished", value)


def test_workers_share_the_number_of_trials_and_draw_different_values(tmp_path):
    first, second = worker(tmp_path), worker(tmp_path)
    claimed = [*first.claim(2), *second.claim(5)]
    assert [trial.number for trial in claimed] == [0, 1, 2]
    assert len({trial.params["x"] for trial in claimed}) == 3
    assert first.claim(1) == second.claim(1) == []
    assert first.others_run()


def test_the_trial_of_a_killed_worker_is_taken_over_as_it_is(tmp_path):
    killed, living = worker(tmp_path, 1), worker(tmp_path, 1)
    (lost,) = killed.claim(1)
    assert living.claim(1) == []
    lost.set_user_attr("alive_at", time.time() - 61)
    (taken,) = living.claim(1)
    assert (taken.number, taken.params) == (lost.number, lost.params)
    with living.alive([taken]):
        living.tell(taken, finished(2.0))
    with killed.alive([lost]):
        killed.tell(lost, finished(3.0))  # it was only asleep, and comes too late
    assert living.study.trials[0].value == 2.0
    assert not living.others_run()


def test_a_worker_killed_while_it_draws_loses_nothing(tmp_path):
    first = worker(tmp_path, 1)
    first.study.ask()
    (taken,) = worker(tmp_path, 1).claim(1)
    assert taken.number == 0
    assert "x" in taken.params


def test_a_trial_shows_signs_of_life_and_one_that_was_stopped_is_free_at_once(tmp_path):
    first, second = worker(tmp_path, 1), worker(tmp_path, 1)
    (trial,) = first.claim(1)
    with first.alive([trial]):
        trial.set_user_attr("alive_at", 0.0)
        deadline = time.monotonic() + 30
        while first.study.trials[0].user_attrs["alive_at"] == 0.0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second.claim(1) == []
        first.tell(trial, Outcome((), "run", "preempted"))
    assert [taken.number for taken in second.claim(1)] == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tag(log,interval(1e-4,1e-2))", optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)),
        ("interval(0,0.5)", optuna.distributions.FloatDistribution(0, 0.5)),
        ("int(interval(2,9))", optuna.distributions.IntDistribution(2, 9)),
        ("range(1,9,2)", optuna.distributions.IntDistribution(1, 7, step=2)),
        ("range(0,0.5,0.1)", optuna.distributions.FloatDistribution(0, 0.4, step=0.1)),
        ("choice([8,16],[8])", optuna.distributions.CategoricalDistribution(["[8,16]", "[8]"])),
        ("adamw,lars", optuna.distributions.CategoricalDistribution(["adamw", "lars"])),
    ],
)
def test_ranges_in_hydras_syntax_are_what_optuna_draws_from(text, expected):
    suggest, example = suggestion(OverridesParser.create().parse_overrides([f"key={text}"])[0])
    trial = optuna.create_study().ask()
    suggest(trial)
    assert trial.distributions == {"key": expected}
    assert example.startswith("key=")


def test_a_study_goes_on_to_its_number_of_trials(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sweep("hydra.sweeper.n_trials=2") == 0
    first = {path: (path / "summary.json").stat().st_mtime_ns for path in directories(tmp_path)}
    assert sweep("hydra.sweeper.n_trials=3") == 0
    assert states(tmp_path) == ["COMPLETE"] * 3
    assert len(directories(tmp_path)) == 3
    assert all((path / "summary.json").stat().st_mtime_ns == written for path, written in first.items())
    for trial in trials(tmp_path):
        summary = read_json(tmp_path / trial.user_attrs["run_dir"] / "summary.json")
        assert summary["objective"] == {"name": "eval/rankme/rank", "value": trial.value}
        assert (
            f"optim.lr={trial.params['optim.lr']}"
            in (tmp_path / trial.user_attrs["run_dir"] / "overrides.yaml").read_text()
        )
    best = max(trials(tmp_path), key=lambda trial: trial.value)
    assert f"Best: trial {best.number}, {best.user_attrs['run_dir']}" in capsys.readouterr().out
    assert sweep("hydra.sweeper.n_trials=3", "seed=7") == 1
    assert "was started with" in capsys.readouterr().err


def test_a_pruned_run_ends_early_and_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pruner = ("~hydra.sweeper.pruner", "+hydra.sweeper.pruner={_target_:optuna.pruners.ThresholdPruner,lower:1e6}")
    assert sweep("hydra.sweeper.n_trials=2", *pruner) == 0
    assert states(tmp_path) == ["PRUNED"] * 2
    assert [list(trial.intermediate_values) for trial in trials(tmp_path)] == [[1], [1]]
    for folder in directories(tmp_path):
        summary = read_json(folder / "summary.json")
        assert (summary["status"], summary["step"]) == ("pruned", 2)
    assert "pruned" in capsys.readouterr().out

    # A worker killed between the run's end and the study's record of it: who takes the trial over finds it pruned.
    storage = open_storage(f"sqlite:///{tmp_path}/sweep/study.db")
    study = optuna.load_study(study_name="pretrain", storage=storage)
    study.enqueue_trial(study.trials[0].params)
    written = {path: (path / "metrics.csv").stat().st_mtime_ns for path in directories(tmp_path)}
    assert sweep("hydra.sweeper.n_trials=3", *pruner) == 0
    assert states(tmp_path) == ["PRUNED"] * 3
    assert {path: (path / "metrics.csv").stat().st_mtime_ns for path in directories(tmp_path)} == written


def test_a_database_that_does_not_answer_costs_a_trial_its_pruning_alone(tmp_path):
    first = worker(tmp_path)
    (trial,) = first.claim(1)
    report = reporter(f"sqlite:///{tmp_path}/study.db", "s", optuna.pruners.MedianPruner(), trial.number)
    assert report(1, 0.5) is False
    (tmp_path / "study.db").write_bytes(b"no database any more")
    with pytest.warns(UserWarning, match="does not answer .*continues without pruning"):
        assert report(2, 0.5) is False


def test_a_failed_trial_is_recorded_and_the_study_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sweep("hydra.sweeper.n_trials=5", "optim.lr=choice(1e-3,1e30)", "trainer.gradient_clip_val=null") == 1
    found = Counter((trial.params["optim.lr"], trial.state.name) for trial in trials(tmp_path))
    assert set(found) == {("0.001", "COMPLETE"), ("1e+30", "FAIL")}
    errors = capsys.readouterr().err
    assert re.search(rf"{found['1e+30', 'FAIL']} of 5 trials failed:\n  (\d trials \()?trial ", errors)
    assert "NaN or infinite" in errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["objective=null"], "objective is null"),
        (["optim.lr=1e-3"], "nothing to search"),
        (["optim.lrr=interval(0.0,1.0)"], "Did you mean optim.lr?"),
        (["hydra.sweeper.lost_after_sec=1"], "several times hydra.sweeper.heartbeat_sec"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sweep(*args) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_several_ranks_are_refused(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert sweep() == 1
    assert "Start one process" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_do_every_trial_once(tmp_path):
    command = ["pretrain", "-m", *SMALL, *SEARCH, "hydra.sweeper.n_trials=10"]
    command += ["hydra.sweeper.heartbeat_sec=1", "hydra.sweeper.lost_after_sec=10"]
    workers = [start(*command, cwd=tmp_path) for _ in range(2)]

    def begun(worker):
        lines = worker.output()[0].splitlines()
        return [line.split("Run directory: ")[1].split(", resumed")[0] for line in lines if "Run directory: " in line]

    try:
        deadline = time.monotonic() + 900
        while not all(len(begun(worker)) >= least for worker, least in zip(workers, (3, 1), strict=True)):
            assert all(worker.poll() is None for worker in workers), [worker.output() for worker in workers]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers[0].send_signal(signal.SIGKILL)
        assert workers[1].wait(timeout=900) == 0, workers[1].output()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert len(states(tmp_path)) == 10
    assert set(states(tmp_path)) <= {"COMPLETE", "PRUNED"}
    folders = directories(tmp_path)
    assert len(folders) == 10
    assert {read_json(folder / "summary.json")["status"] for folder in folders} <= {"finished", "pruned"}
    starts = Counter(begun(workers[0]) + begun(workers[1]))
    in_the_middle = begun(workers[0])[-1]
    assert set(starts) == {str(folder) for folder in folders}
    assert starts.pop(in_the_middle) == 2, "taken up again where it was"
    assert set(starts.values()) == {1}
