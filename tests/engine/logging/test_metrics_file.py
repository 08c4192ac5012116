"""metrics.csv: appended to, never rewritten for a row, and complete after a full disk."""

import csv
import warnings

import pytest

from ssl_lab.engine.logging import loggers
from ssl_lab.engine.logging.loggers import MetricsFile


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_many_rows_are_appended(tmp_path, monkeypatch):
    rewritten = []
    write = loggers.write_atomically
    monkeypatch.setattr(loggers, "write_atomically", lambda *args: (rewritten.append(args[0]), write(*args)))
    file = MetricsFile(tmp_path)
    for step in range(3000):
        file.log_metrics({"epoch": step // 100, "train/loss": 1 / (step + 1)}, step)
        file.save()
        if step % 100 == 99:
            file.flush()
            file.log_metrics({"eval/knn/top1": step / 3000}, step)
    file.finalize("success")
    assert len(rewritten) == 3  # the header, and once for each new metric
    rows = rows_of(file.path)
    assert [int(row["step"]) for row in rows] == list(range(3000))
    assert float(rows[-1]["eval/knn/top1"]) == 2999 / 3000 and rows[0]["eval/knn/top1"] == ""


@pytest.mark.parametrize("new_metric", [False, True])
def test_rows_wait_while_the_disk_is_full(tmp_path, monkeypatch, new_metric):
    file = MetricsFile(tmp_path)
    for step in range(4):
        file.log_metrics({"train/loss": step}, step)
    opened = type(file.path).open

    def full(path, *args, **kwargs):
        if path == file.path or new_metric:
            with opened(path, "a") as half:
                half.write("9,9")  # some bytes still fit
            raise OSError(28, "No space left on device")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(type(file.path), "open", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(4, 8):
            file.log_metrics({"train/loss": step, **({"eval/x": step} if new_metric else {})}, step)
            file.flush()
    assert [str(one.message).count("No space left") for one in caught] == [1]
    monkeypatch.setattr(type(file.path), "open", opened)
    for step in range(8, 11):
        file.log_metrics({"train/loss": step}, step)
    file.finalize("success")
    rows = rows_of(file.path)
    assert [(int(row["step"]), float(row["train/loss"])) for row in rows] == [(step, step) for step in range(11)]
    if new_metric:
        assert [row["eval/x"] for row in rows[3:9]] == ["", "4", "5", "6", "7", ""]


def test_a_file_with_damaged_rows_is_gone_on_with(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,epoch,train/loss\n0,0,0.5\n" + bytes(40) + b",0,0.4\n2,0,0.3,0.2\n\xff\n3,0,0.1\n")
    file = MetricsFile(tmp_path)
    file.log_metrics({"train/loss": 0.05}, 4)
    file.finalize("success")
    assert [(row["step"], row["train/loss"]) for row in rows_of(path)] == [("0", "0.5"), ("3", "0.1"), ("4", "0.05")]


def test_a_file_larger_than_any_run_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "MAX_TABLE_BYTES", 20)
    (tmp_path / "metrics.csv").write_text("step,epoch\n1,0\n2,0\n3,0\n")
    with pytest.raises(ValueError, match="metrics.csv cannot be read .it has more than 20 bytes"):
        MetricsFile(tmp_path).log_metrics({"train/loss": 1.0}, 0)
