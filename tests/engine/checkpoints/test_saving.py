"""What a killed process wrote behind its last checkpoint counts once, and truly."""

from types import SimpleNamespace

import pytest
import torch

from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining, Evaluation
from ssl_lab.engine.callbacks.trial import ReportObjective
from ssl_lab.engine.checkpoints.saving import KeepBest
from ssl_lab.engine.missed_evaluation import missed_evaluation

METRIC = "eval/finetune/accuracy"


def trainer_of(*callbacks):
    """What the callbacks ask of a trainer that has nothing left to do after three epochs."""
    model = SimpleNamespace(automatic_optimization=True)
    return SimpleNamespace(
        is_global_zero=True,
        callbacks=list(callbacks),
        callback_metrics={},
        current_epoch=3,
        global_step=6,
        lightning_module=model,
        fit_loop=SimpleNamespace(total_batch_idx=5),
    )


@pytest.mark.parametrize(
    ("contents", "best"),
    [({"state_dict": {}, "best_value": 0.9}, 0.9), ({"state_dict": {}}, 0.5), (None, None)],
    ids=["of a lost life", "of an earlier version", "gone"],
)
def test_a_resumed_run_takes_the_best_value_from_the_file_that_has_the_weights(contents, best, tmp_path):
    keep = KeepBest(tmp_path, METRIC, every_n_epochs=1)
    keep.path.parent.mkdir()
    if contents is not None:
        torch.save(contents, keep.path)
    keep.load_state_dict({"best": 0.5})
    keep.on_train_start(trainer_of(), None)
    assert keep.best == best


def test_a_new_run_does_not_read_the_file_of_one_before(tmp_path):
    keep = KeepBest(tmp_path, METRIC, every_n_epochs=1)
    keep.path.parent.mkdir()
    torch.save({"state_dict": {}, "best_value": 0.9}, keep.path)
    keep.on_train_start(trainer_of(), None)
    assert keep.best is None


def test_the_best_checkpoint_holds_its_value(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "ssl_lab.engine.checkpoints.saving._write_checkpoint",
        lambda trainer, path, **settings: written.append(settings["extra"]),
    )
    keep = KeepBest(tmp_path, METRIC, every_n_epochs=1)
    for value in (0.5, 0.4, 0.6):
        keep.look(trainer_of(), {METRIC: value})
    assert written == [{"best_value": 0.5}, {"best_value": 0.6}]


def test_the_evaluation_that_a_kill_has_cost_is_reported_to_the_study(monkeypatch):
    told = []
    evaluation = EvaluateDuringTraining(None, Evaluation())
    monkeypatch.setattr(evaluation, "evaluate", lambda method, protocols: {METRIC: 0.7})
    report = ReportObjective(METRIC, lambda epoch, value: told.append((epoch, value)), every_n_epochs=1)
    assert missed_evaluation(trainer_of(evaluation, report), None) == {METRIC: 0.7}
    assert told == [(3, 0.7)]
