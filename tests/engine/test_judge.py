"""Evaluation files of earlier, whatever they hold."""

from types import SimpleNamespace

import pytest
import torch

from ssl_lab.engine import judge
from ssl_lab.engine.judge import earlier_records, join_records

RECORD = {"protocol": "KNN", "settings": {}, "split": "test", "metrics": {"encoder": {"knn/top1": 0.5}}}


@pytest.mark.parametrize("content", ['{"rows": [', '{"measured": [1]}', '{"measured": [{"metrics": [0.5]}]}'])
def test_a_file_that_cannot_be_read_is_kept_whatever_it_holds(tmp_path, content):
    path = tmp_path / "evaluation.json"
    for name in ("evaluation.json.damaged", "evaluation.json.damaged2"):
        path.write_text(content)
        with pytest.warns(UserWarning, match=f"cannot be read .*moved to {name}"):
            join_records(path, [RECORD])
        assert (tmp_path / name).read_text() == content
    assert earlier_records(path) == [RECORD]


def test_a_file_that_is_not_written_to_stays_where_it_is(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text("{")
    with pytest.warns(UserWarning, match="cannot be read .*is left out"):
        assert earlier_records(path, replaced=False) == []
    assert path.read_text() == "{" and len(list(tmp_path.iterdir())) == 1


def test_the_share_of_the_most_frequent_class_is_kept_for_accuracies():
    def frequency(labels, *metrics):
        return judge._frequency(SimpleNamespace(columns=lambda split: {"label": labels}), "test", metrics)

    labels = torch.tensor([0, 0, 0, 1, -1, -1, -1, -1])
    assert frequency(labels, "rankme/rank", "knn/top1") == {"frequency": 0.75}
    assert frequency(labels, "finetune/accuracy") == {"frequency": 0.75}
    assert not frequency(labels, "rankme/rank", "knn/macro_f1")
    assert not frequency(torch.rand(8), "knn/top1"), "no classes"
    assert not frequency(torch.zeros(8, 3, dtype=torch.int64), "knn/top1"), "several for each sample"
    assert not frequency(torch.full((3,), -1), "knn/top1"), "none is known"
