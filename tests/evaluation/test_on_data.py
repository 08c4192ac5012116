"""A protocol with data and a cadence of its own: names, titles, records, baselines and refusals."""

from dataclasses import replace

import pytest
import torch
from arrays import ArrayImages, ArrayText, LackingImages
from evaluation import on_data_on_ranks
from evaluation.on_data_on_ranks import Bright, all_metrics
from forked import on_ranks

from ssl_lab.engine.baselines import baseline_rows, check_baselines
from ssl_lab.engine.judge import check_is_measurable, check_is_measured, check_needs, evaluate_with_baselines
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.geometry.label_free import RankMe
from ssl_lab.evaluation.on_data import OnData
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import LinearProbe
from ssl_lab.evaluation.protocol import LabelFreeProtocol
from ssl_lab.evaluation.samples.quality import SampleQuality
from ssl_lab.measured import merged, settings_of_metric
from ssl_lab.metrics import Metric, declared, descriptions
from ssl_lab.report.tables import tables
from ssl_lab.runs.ways import measuring_in, ways_of
from ssl_lab.testing.protocols import check_protocol

CPU = torch.device("cpu")


class Other(ArrayImages):
    """Other images, with a name that no format should read."""

    title = "Other {0} images"


class Without(LackingImages, Other):
    """The same without some splits."""


class Judged:
    """As much of a method as is judged."""

    result_name = "own encoder"

    def __init__(self, spec=None):
        self.encoder = torch.nn.Identity()
        self.encoder.spec = spec or ArrayImages().spec
        self.needs_columns = ()

    def capabilities(self):
        return {"features": lambda batch: batch["image"].float().flatten(1)[:, :64]}

    def state_dict(self):
        return {}


class Counted(Other):
    """Counts how often a split is read in evaluation."""

    num_read = 0

    def eval_dataloader(self, split, **settings):
        self.num_read += 1
        return super().eval_dataloader(split, **settings)


def test_metrics_carry_the_name_and_a_title_of_the_data():
    protocol = OnData(Bright(), data=Other(), name="other")
    metrics = protocol.run(lambda batch: batch["image"].float().flatten(1), ArrayImages(), device=CPU)
    assert list(metrics) == ["other/bright/mean_k5", "other/bright/max"]
    assert protocol.settings == {"on_data": "other"} and OnData(Bright(), every_n_epochs=2).settings == {}
    mean, largest = (declared(protocol.metrics, name) for name in metrics)
    assert mean.column == "mean of 5 on Other {0} images" and largest.column == "largest on Other {0} images"
    assert mean.panel == "Other {0} images: mean of 5" and largest.panel == "Other {0} images: values"
    assert (
        mean.table.title == "Other {0} images: Brightness" and mean.table.key != Bright.metrics["bright/max"].table.key
    )
    assert descriptions(protocol.metrics, metrics)["metrics"].keys() == metrics.keys()
    check_protocol(protocol, ArrayImages().spec.raw, ArrayImages())


def test_the_same_protocol_on_two_data_sets_gives_the_numbers_of_each():
    own, other = ArrayImages(), Other(num_samples=40)
    fn = {"features": lambda batch: batch["image"][:, 0, 3:5, 2:6].flatten(1).float()}
    alone = [evaluate(fn, [KNN(), RankMe()], data, device=CPU) for data in (own, other)]
    both = evaluate(
        fn,
        [KNN(), OnData(KNN(), data=other, name="o"), RankMe(), OnData(RankMe(), data=other, name="o")],
        own,
        device=CPU,
    )
    assert both == alone[0] | {f"o/{name}": value for name, value in alone[1].items()}
    assert alone[0]["rankme/rank"] != alone[1]["rankme/rank"]


def test_protocols_on_the_same_data_share_one_extraction():
    other = Counted()
    protocols = [OnData(each, data=other, name="o") for each in (KNN(), LinearProbe(), RankMe())]
    evaluate({"features": other.spec.raw}, protocols, ArrayImages(), device=CPU, max_train_samples=20)
    assert other.num_read == 2  # train and test


def test_labels_are_those_of_the_own_data():
    with pytest.warns(UserWarning, match="ArrayImages has no labels, which KNN need"):
        found = evaluate(
            {"features": ArrayImages().spec.raw},
            [KNN(), OnData(KNN(), data=Other(), name="o")],
            ArrayImages(labels=False),
            device=CPU,
        )
    assert {name.rsplit("/", 1)[0] for name in found} == {"o/knn"}


def records(*protocols, own=None):
    return evaluate_with_baselines(Judged(), protocols, own or ArrayImages(), [], device=CPU)


def test_records_hold_the_facts_of_the_data_that_was_judged():
    other = Other(num_samples=40)
    found = records(KNN(), OnData(KNN(), data=other, name="o"))
    assert [record["protocol"] for record in found] == ["KNN", "KNN"]
    assert [record["data"]["title"] for record in found] == ["ArrayImages", other.title]
    assert [record["data"]["scored"].split()[0] for record in found] == ["64", "40"]
    evaluation = merged([], found)
    assert evaluation["data"] == "ArrayImages", "an evaluation is that of the run's data, whatever came last"
    (own, beside) = [table for table in tables(evaluation) if not table.secondary]
    assert own.columns == ("kNN ↑",) and beside.columns == (f"kNN on {other.title} ↑",)
    assert beside.title == f"{other.title}: {own.title}"
    assert len(merged(found, records(KNN(), OnData(KNN(), data=other, name="o")))["measured"]) == 2
    changed = merged(found, records(OnData(KNN(), data=Other(num_samples=38), name="o")))
    assert len(changed["measured"]) == 3
    names = [name for name in changed["rows"][-1]["metrics"] if "top1" in name]
    assert len(names) == 3 and "knn/top1" in names and sum(name.startswith("o/knn/top1[") for name in names) == 2


def test_the_very_same_data_under_a_name_is_a_measurement_of_its_own():
    data = ArrayImages()
    evaluation = merged([], records(KNN(), OnData(KNN(), data=data, name="again"), own=data))
    assert len(evaluation["measured"]) == 2 and len(tables(evaluation)) == 4


def test_baselines_are_judged_on_the_own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path))
    own, other = ArrayImages(), Other(num_samples=40)

    class Start(torch.nn.Module):
        pretrained = False

        def embed(self, batch):
            return batch["image"][:, 0, 3:5, 2:6].flatten(1).float()

    first = baseline_rows([KNN(), OnData(RankMe(), data=other, name="o")], own, Start(), device=CPU)
    alone = baseline_rows([RankMe()], other, Start(), device=CPU)
    assert [(row.name, row.kind) for row in first] == [("raw pixels", "input"), ("random encoder", "encoder")]
    for row, on_other in zip(first, alone, strict=True):
        assert "knn/top1" in row.metrics[0]
        assert row.metrics[1] == {"o/rankme/rank": on_other.metrics[0]["rankme/rank"]}
    unlabelled = baseline_rows(
        [KNN(), OnData(KNN(), data=other, name="o")], ArrayImages(labels=False), Start(), device=CPU
    )
    assert [("o/knn/top1" in row, len(row)) for row in unlabelled[0].metrics] == [(False, 0), (True, 3)]
    check_baselines([OnData(KNN(), data=other, name="o")], Without("test"))
    with pytest.raises(ValueError, match="no test split"):
        check_baselines([KNN()], Without("test"))


WRONG = {
    "Cannot put one OnData into another": lambda: OnData(OnData(KNN(), every_n_epochs=2), every_n_epochs=3),
    "OnData of KNN has no effect: it has neither data nor every_n_epochs": lambda: OnData(KNN()),
    "found name=x without data": lambda: OnData(KNN(), name="x", every_n_epochs=1),
    r"found data of Other \{0\} images without a name": lambda: OnData(KNN(), data=Other()),
    "Cannot begin names of metrics with name='A/b'": lambda: OnData(KNN(), data=Other(), name="A/b"),
    "Cannot use every_n_epochs=0 of OnData of KNN. Set it to 1 or more": lambda: OnData(KNN(), every_n_epochs=0),
}


@pytest.mark.parametrize("told", WRONG)
def test_what_has_no_effect_or_no_meaning_is_refused(told):
    with pytest.raises(ValueError, match=told):
        WRONG[told]()


class Deep(LabelFreeProtocol):
    """An outsider's protocol on a column of the outsider's data."""

    needs_columns = ("depth",)

    def score(self, x):
        return {}


REFUSED = {
    r"Cannot run KNN on o .*: the encoder reads images of shape \(1, 8, 8\), found images of shape \(3, 8, 8\)": [
        OnData(KNN(), data=Other(shape=(3, 8, 8)), name="o")
    ],
    r"Cannot run RankMe on o .*found texts": [OnData(RankMe(), data=ArrayText(), name="o")],
    "Cannot run KNN on o .*: it needs labels, and the data has none": [
        OnData(KNN(), data=Other(labels=False), name="o")
    ],
    "neither a val nor a test split": [OnData(KNN(), data=Without("val", "test"), name="o")],
    "Deep needs depth, but Other has": [OnData(Deep(), data=Other(), name="o")],
    "SampleQuality needs 'sample'": [OnData(SampleQuality(), data=Other(), name="o")],
    r"Cannot call two data sets o: found Other \{0\} images and ArrayImages": [
        OnData(KNN(), data=Other(), name="o"),
        OnData(RankMe(), data=ArrayImages(), name="o"),
    ],
    "Cannot run KNN and KNN at two cadences, as often as the run says and every 3 epochs": [
        KNN(),
        OnData(KNN(num_neighbors=[1]), every_n_epochs=3),
    ],
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_judged_is_refused_before_training(told):
    with pytest.raises(ValueError, match=told):
        check_needs(Judged(), REFUSED[told], ArrayImages())


def test_what_is_told_apart_is_fine():
    other = Other()
    check_needs(
        Judged(),
        [
            *(KNN(), OnData(KNN(), data=other, name="o", every_n_epochs=3), OnData(RankMe(), data=other, name="o")),
            *(OnData(LinearProbe(), every_n_epochs=5), OnData(KNN(), data=Without("val"), name="o2")),
        ],
        ArrayImages(),
    )


def test_texts_of_another_vocabulary_are_not_accepted():
    spec = ArrayText().spec
    assert spec.accepts(replace(spec, length=3)) and not spec.accepts(replace(spec, vocab_size=41))
    known = replace(spec, continues_word=(7, 8))
    assert known.accepts(spec) and not known.accepts(replace(spec, continues_word=(7, 9)))


def test_the_val_split_that_an_objective_needs_is_that_of_its_data():
    protocols = [KNN(), OnData(KNN(), data=Without("val"), name="o"), OnData(RankMe(), data=Other(), name="p")]
    check_is_measurable("eval/knn/top1", protocols, ArrayImages())
    check_is_measurable("eval/p/rankme/rank", protocols, Without("val"))
    check_is_measured("eval/p/rankme/rank", protocols, Without("val"))
    for check in (check_is_measurable, check_is_measured):
        with pytest.raises(ValueError, match="val split"):
            check("eval/o/knn/top1", protocols, ArrayImages())


def config(**data):
    inner = {"_target_": "ssl_lab.evaluation.probes.knn.KNN", "num_neighbors": [data.pop("k", 20)]}
    on = {
        "_target_": "ssl_lab.evaluation.on_data.OnData",
        "protocol": inner,
        "name": "o",
        "data": {"name": "x", **data},
    }
    slow = {**on, "name": None, "data": None, "every_n_epochs": 9}
    return {"data": {"name": data.pop("own", "own")}, "evaluation": {"a": on, "b": slow, "c": {"_target_": "x.RankMe"}}}


def test_how_a_run_measures_on_other_data_is_read_from_its_settings():
    nodes = config(k=5)["evaluation"]
    assert settings_of_metric("o/knn/top1", nodes) == ({"num_neighbors": 5}, {"name": "x"})
    assert settings_of_metric("knn/top1", nodes) == ({"num_neighbors": 5}, None)
    assert settings_of_metric("rankme/rank", nodes) == ({}, None)
    same, other, near, own = (
        measuring_in(title, config(**settings))
        for title, settings in (("A", {}), ("A", {"name": "y"}), ("A", {"k": 1}), ("B", {"own": "b"}))
    )
    metric = "test/o/knn/top1"
    assert ways_of([same, other], metric) == ["data.name=x", "data.name=y"]
    assert ways_of([same, near], metric) == ["num_neighbors=20", "num_neighbors=1"]
    assert ways_of([same, own], metric) == ["", ""], "the run's own data plays no part"
    assert ways_of([same, own], "test/knn/top1") == ["data=A", "data=B"]


def test_a_panel_is_a_template_as_columns_are():
    metrics = {"a/#": Metric(column="x", panel="top {0}")}
    assert declared(metrics, "a/5").panel == "top 5"


def test_the_number_of_ranks_does_not_matter(tmp_path):
    on_ranks(2, on_data_on_ranks.main, tmp_path)
    expected = all_metrics()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first == second == pytest.approx(expected, rel=1e-6)
    assert {"knn/top1", "o/knn/top1", "o/few_label/top1_n1", "o/bright/max", "o/mig/mig"} <= expected.keys()
