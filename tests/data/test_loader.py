import threading

import numpy as np
import pytest
import torch

import ssl_lab.data.loader as loading
from ssl_lab import distributed
from ssl_lab.data.columns import LazyColumn
from ssl_lab.data.loader import BatchLoader, check_enough


def loader(num=20, *, batch_size=4, seed=3, shuffle=True, as_memory=False):
    column = np.arange(num) if as_memory else torch.arange(num)
    return BatchLoader({"x": column}, lambda rows: rows, batch_size=batch_size, seed=seed, shuffle=shuffle)


def read(batches):
    return [batch["x"].tolist() for batch in batches]


def epoch(batches, number):
    batches.sampler.set_epoch(number)
    return read(batches)


def test_the_order_is_a_function_of_seed_and_epoch():
    assert epoch(loader(), 0) == epoch(loader(), 0) == epoch(loader(as_memory=True), 0)
    assert epoch(loader(), 0) != epoch(loader(), 1)
    assert epoch(loader(), 0) != epoch(loader(seed=4), 0)
    assert sorted(sum(epoch(loader(), 5), [])) == list(range(20))


def test_training_drops_the_incomplete_batch_and_evaluation_keeps_it():
    assert [len(rows) for rows in read(loader(10))] == [4, 4]
    assert read(loader(10, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader(10)) == 2 and len(loader(10, shuffle=False)) == 3


def test_index_is_the_row_of_the_split():
    for batch in loader():
        assert torch.equal(batch["index"], batch["x"])


@pytest.mark.parametrize("as_memory", [False, True])
@pytest.mark.parametrize("done", [1, 3, 4])
def test_a_resumed_loader_goes_on_with_the_next_batch(done, as_memory):
    whole = epoch(loader(as_memory=as_memory), 2)
    stopped = loader(as_memory=as_memory)
    stopped.sampler.set_epoch(2)
    for _, _ in zip(range(done), stopped, strict=False):
        pass
    resumed = loader(as_memory=as_memory)
    resumed.load_state_dict(stopped.state_dict())
    assert read(resumed) == whole[done:]
    assert epoch(resumed, 3) == epoch(loader(), 3)


def test_a_loader_resumed_at_the_end_of_an_epoch_begins_the_next_one():
    stopped = loader()
    epoch(stopped, 2)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert epoch(resumed, 3) == epoch(loader(), 3)


def test_an_epoch_that_was_cut_short_does_not_shift_the_next():
    batches = loader()
    batches.sampler.set_epoch(0)
    next(iter(batches))
    assert epoch(batches, 0) == epoch(loader(), 0)
    next(iter(batches))
    assert epoch(batches, 1) == epoch(loader(), 1)


def test_state_at_a_cut_short_epoch_does_not_shift_the_next():
    stopped = loader()
    next(iter(stopped))
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert epoch(resumed, 1) == epoch(loader(), 1)


def test_two_ranks_read_what_one_process_with_twice_the_batch_reads(monkeypatch):
    joined = read(loader(batch_size=8))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(read(loader(batch_size=4)))
        assert read(loader(10, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [a + b for a, b in zip(*shares, strict=True)] == joined


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_used():
    def fail_on_second(rows):
        if 4 in rows["x"]:
            raise OSError("disk gone")
        return rows

    batches = iter(BatchLoader({"x": np.arange(12)}, fail_on_second, batch_size=4))
    assert next(batches)["x"].tolist() == [0, 1, 2, 3]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


def test_fewer_samples_than_a_step_needs_is_an_error():
    with pytest.raises(
        ValueError, match=r"data.batch_size=4: the training split has 3 samples\. Set data.batch_size=1\."
    ):
        loader(3)
    with pytest.raises(
        ValueError, match=r"=256 on 2 ranks \(512 samples a step\): .* 245 samples\. Set data.batch_size=32"
    ):
        check_enough(245, 256, 2)


def test_columns_of_different_length_are_refused():
    columns = {"x": torch.arange(4), "label": torch.arange(3)}
    with pytest.raises(ValueError, match=r"different length: x 4, label 3 rows\. Give each"):
        BatchLoader(columns, dict, batch_size=1)


def test_a_read_that_hangs_is_reported_with_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_PATIENCE_SEC", 0.05)
    pixels = np.memmap(tmp_path / "pixels.bin", dtype=np.uint8, mode="w+", shape=(4, 1))
    released, warned = threading.Event(), []

    def slow(rows):
        released.wait(30)
        return pixels[rows]

    def warn(message, **_):
        warned.append(message)
        released.set()

    monkeypatch.setattr(loading.warnings, "warn", warn)
    columns = {"image": pixels, "ids": LazyColumn(slow, (4, 1), np.dtype(np.uint8))}
    batches = list(BatchLoader(columns, as_batch=dict, batch_size=4))
    assert len(batches) == 1
    assert "pixels.bin hangs" in warned[0]
