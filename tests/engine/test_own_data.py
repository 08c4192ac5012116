"""Training with protocols that have data and cadences of their own."""

import csv
import json
import warnings

import pytest
import torch
from arrays import ArrayImages, LackingImages
from engine.tiny import Tiny, TinyEncoder, trainer

from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.callbacks.trial import ReportObjective
from ssl_lab.engine.checkpoints.saving import Saving
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.evaluation.geometry.label_free import FeatureStd, RankMe
from ssl_lab.evaluation.on_data import OnData
from ssl_lab.evaluation.protocol import LabelFreeProtocol


class Other(LackingImages):
    """Images of another title."""

    title = "Other images"


class Falling(LabelFreeProtocol):
    """Highest the first time, and then less."""

    metrics = RankMe.metrics

    def __init__(self):
        self.calls = 0

    def score(self, x):
        self.calls += 1
        return {"rankme/rank": 1.0 / self.calls}


def run(folder, *protocols, epochs=5, every=2, data=None, **settings):
    data = data or ArrayImages(batch_size=64)
    torch.manual_seed(0)
    evaluation = Evaluation(protocols, every_n_epochs=every, baselines=False)
    method, fit = Tiny(TinyEncoder(ArrayImages().spec)), trainer(folder, epochs=epochs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|typing_extensions")
        return pretrain(method, data, fit, evaluation=evaluation, **settings)


def evaluated(folder):
    """Of each metric of the validation split, the steps at which it was measured; an epoch is one step."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("eval/")]
    return {name: [int(row["step"]) + 1 for row in rows if row[name]] for name in names}


def test_each_has_its_cadence_and_all_are_run_after_the_last_epoch(tmp_path):
    other = Other(num_samples=40)
    slow, often = (OnData(RankMe(), data=other, name="o", every_n_epochs=3), OnData(FeatureStd(), every_n_epochs=1))
    metrics = run(tmp_path, RankMe(), slow, often)
    assert evaluated(tmp_path) == {
        "eval/rankme/rank": [2, 4, 5],
        "eval/o/rankme/rank": [3, 5],
        "eval/feature_std/mean": [1, 2, 3, 4, 5],
    }
    assert {"test/rankme/rank", "test/o/rankme/rank", "test/feature_std/mean"} <= metrics.keys()
    described = json.loads((tmp_path / "metrics.json").read_text())
    assert described["metrics"]["o/rankme/rank"]["column"].endswith(" on Other images")
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert [record["data"]["title"] for record in found["measured"]] == ["ArrayImages", "Other images", "ArrayImages"]
    alone = run(tmp_path / "alone", RankMe(), FeatureStd())
    same = [name for name in alone if name.split("/")[0] in ("eval", "test", "train")]
    assert len(same) >= 5 and all(alone[name] == metrics[name] for name in same), "training goes on untouched"


@pytest.mark.parametrize(("own", "expected"), [(None, [2, 4, 5]), (3, [3, 5]), (1, [1, 2, 3, 4, 5])])
def test_the_best_checkpoint_is_chosen_among_the_evaluations_that_measure_its_metric(own, expected, tmp_path):
    falling = Falling()
    judge = falling if own is None else OnData(falling, every_n_epochs=own)
    every = OnData(FeatureStd(), every_n_epochs=1)
    run(tmp_path, judge, every, saving=Saving(keep_best="eval/rankme/rank"))
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert best["best_value"] == 1.0 and best["global_step"] == expected[0]
    assert evaluated(tmp_path)["eval/rankme/rank"] == expected


def test_a_study_hears_each_value_when_it_is_measured(tmp_path):
    told = []
    judge = OnData(Falling(), data=Other(), name="o", every_n_epochs=3)
    cadence = Evaluation([judge], every_n_epochs=2).cadence_of_metric("eval/o/rankme/rank")
    report = ReportObjective(
        "eval/o/rankme/rank", lambda epoch, value: bool(told.append((epoch, value))), every_n_epochs=cadence
    )
    run(tmp_path, judge, OnData(FeatureStd(), every_n_epochs=1), trial=report)
    assert told == [(3, 1.0), (5, 0.5)]


def test_a_metric_s_cadence_is_that_of_the_protocol_that_measures_it():
    evaluation = Evaluation(
        [RankMe(), OnData(FeatureStd(), every_n_epochs=7), OnData(RankMe(), data=Other(), name="o", every_n_epochs=5)],
        every_n_epochs=2,
    )
    names = ("rankme/rank", "rankme/rank[num_samples=5]", "feature_std/mean", "o/rankme/rank", "o/unknown", "unknown")
    assert [evaluation.cadence_of_metric(f"eval/{name}") for name in names] == [2, 2, 7, 5, 5, 2]


def test_data_that_lack_a_split_are_judged_on_the_other_with_one_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = run(
            tmp_path,
            OnData(RankMe(), data=Other("val"), name="a"),
            OnData(RankMe(), data=Other("test"), name="b"),
            epochs=1,
            data=Other("val", "test", batch_size=64),
        )
    assert sorted(name for name in metrics if "rank" in name and name[:4] in ("eval", "test")) == [
        "eval/b/rankme/rank",
        "test/a/rankme/rank",
    ]
    told = [str(warning.message) for warning in caught if "split" in str(warning.message)]
    assert len(told) == 2 and "no val split" in told[0] and "no test split" in told[1], told


def test_a_run_resumes_with_the_same_other_data_alone(tmp_path):
    def judged(num_samples):
        return OnData(RankMe(), data=Other(num_samples=num_samples), name="o", every_n_epochs=2)

    run(tmp_path, judged(40), epochs=1)
    last = tmp_path / "checkpoints/last.ckpt"
    with pytest.raises(ValueError, match=r"its data changed \(.*o/val: 40 samples, now 38 samples"):
        run(tmp_path, judged(38), epochs=3, ckpt_path=last)
    resumed = run(tmp_path, judged(40), epochs=3, ckpt_path=last)
    whole = run(tmp_path / "whole", judged(40), epochs=3)
    names = [name for name in whole if name.startswith(("eval/", "test/"))]
    assert names and all(resumed[name] == whole[name] for name in names)
