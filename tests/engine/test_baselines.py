import pytest
import torch
from arrays import ArrayImages
from engine.tiny import TinyEncoder

from ssl_lab.engine import baselines
from ssl_lab.engine.baselines import baseline_rows, check_baselines
from ssl_lab.engine.judge import check_needs
from ssl_lab.evaluation.geometry.label_free import RankMe
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.protocol import LabelFreeProtocol
from ssl_lab.evaluation.samples.quality import SampleQuality

CPU = torch.device("cpu")


class Own(LabelFreeProtocol):
    """An outsider's protocol on a column of the outsider's data."""

    needs_columns = ("depth",)
    columns_from = {"depth": "data=rooms, which measures it"}

    def score(self, x):
        return {"own/mean": float(x.mean())}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Names of the protocols that were run, in an empty cache."""
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    names, measure = [], baselines.measure

    def noted(capabilities, protocols, *args, **settings):
        names.extend(type(protocol).__name__ for protocol in protocols)
        return measure(capabilities, protocols, *args, **settings)

    monkeypatch.setattr(baselines, "measure", noted)
    return names


def rows(protocols=None, *, seed=0, **data):
    torch.manual_seed(seed)
    datamodule = ArrayImages(**data)
    encoder = TinyEncoder(datamodule.spec)
    return baseline_rows(protocols or [KNN(), RankMe(), SampleQuality()], datamodule, encoder, device=CPU)


def test_baselines_are_measured_once_for_the_same_data_weights_and_settings(measured):
    first = rows()
    assert [(row.name, row.kind) for row in first] == [("raw pixels", "input"), ("random encoder", "encoder")]
    assert first[0].metrics[2] == {}
    assert measured == 2 * ["KNN", "RankMe"]
    measured.clear()
    assert rows() == first and measured == []
    rows(seed=1)
    assert measured == ["KNN", "RankMe"]  # the raw row stays
    measured.clear()
    rows([KNN(temperature=0.5), RankMe()])
    assert measured == 2 * ["KNN"]
    measured.clear()
    rows(num_samples=62)
    assert measured == 2 * ["KNN", "RankMe"]
    measured.clear()
    rows([Own()])
    rows([Own()])
    assert measured == 4 * ["Own"]  # its code may have changed


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "digit"])
def test_damaged_ones_are_measured_anew(measured, tmp_path, damage):
    first = rows([RankMe()])
    files = list((tmp_path / "cache/baselines").iterdir())
    assert len(files) == 2
    for file in files:
        text = file.read_text()
        file.write_text(text.replace("p+", "p-") if damage == "digit" else damage)
        assert file.read_text() != text
    with pytest.warns(UserWarning, match="computed anew"):
        assert rows([RankMe()]) == first
    measured.clear()
    assert rows([RankMe()]) == first and measured == []


def test_leaving_baselines_out_is_refused_where_there_are_none():
    check_baselines([KNN()], ArrayImages())
    with pytest.raises(ValueError, match="baselines=false has no effect: no protocol of evaluation= judges features"):
        check_baselines([SampleQuality()], ArrayImages())


def test_who_needs_a_column_says_where_it_comes_from():
    class Judged:
        needs_columns = ()

        def capabilities(self):
            return {"features": None}

    with pytest.raises(ValueError, match="Own needs depth, but ArrayImages has .*Choose data=rooms, which measures it"):
        check_needs(Judged(), [Own()], ArrayImages())
