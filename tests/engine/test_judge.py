"""Evaluation files of earlier, whatever they hold."""

import pytest

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
