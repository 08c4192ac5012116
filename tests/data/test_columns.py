"""Columns whose rows differ in size or lie in files: batches equal those of a slow list of rows."""

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import ArrayImages
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lab import distributed
from ssl_lab.data.columns import Decoded, Ragged
from ssl_lab.data.fingerprint import content_digest
from ssl_lab.data.loader import BatchLoader

TAILS = {"boxes": (4,), "audio": (), "clips": (3, 2, 2)}


def rows_of(lengths, tail, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(1, 100, (length, *tail)).astype(np.float32) for length in lengths]


def in_files(folder, rows):
    files = [folder / f"{k}.npy" for k in range(len(rows))]
    for file, row in zip(files, rows, strict=True):
        np.save(file, row)
    return files


def decoded(files, tail=(), **settings):
    return Decoded(files=files, decode=np.load, row_shape=(None, *tail), dtype=np.dtype(np.float32), **settings)


def padded(rows, index):
    """The slow reference: one value at a time."""
    longest = max(len(rows[k]) for k in index)
    out = torch.zeros(len(index), longest, *rows[0].shape[1:])
    for place, k in enumerate(index):
        for t, value in enumerate(rows[k]):
            out[place, t] = torch.as_tensor(value)
    return out, [[len(rows[k])] for k in index]


def check(batch, name, rows):
    expected, sizes = padded(rows, batch["index"].tolist())
    assert torch.equal(batch[name], expected) and batch[f"{name}_size"].tolist() == sizes


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=9),
    tail=st.sampled_from(list(TAILS.values())),
    per_rank=st.integers(1, 4),
    ranks=st.sampled_from([1, 2, 4]),
    shuffle=st.booleans(),
    kind=st.sampled_from(["tensor", "array", "decoded"]),
    data=st.data(),
)
def test_batches_are_those_of_a_list_of_rows(tmp_path_factory, lengths, tail, per_rank, ranks, shuffle, kind, data):
    rows = rows_of(lengths, tail)
    column = Ragged.from_rows(rows)
    if kind == "tensor":
        column = column.to(torch.device("cpu"))
    if kind == "decoded":
        column = decoded(in_files(tmp_path_factory.mktemp("rows"), rows), tail, num_threads=3)
    subset = None
    if not shuffle and data.draw(st.booleans(), label="a part of the rows"):
        subset = torch.tensor(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1), label="rows"))
    per_step = per_rank * ranks if shuffle else per_rank
    if shuffle and len(rows) < per_step:
        return

    def make(size):
        return BatchLoader({"x": column}, dict, batch_size=size, seed=3, shuffle=shuffle, rows=subset)

    plain = torch.arange(len(rows))
    joined = BatchLoader({"x": plain}, dict, batch_size=per_step, seed=3, shuffle=shuffle, rows=subset)
    orders = [batch["index"].tolist() for batch in joined]
    done = data.draw(st.integers(0, len(orders)), label="batches before the stop")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distributed, "world_size", lambda: ranks)
        shares = []
        for rank in range(ranks):
            patched.setattr(distributed, "rank", lambda rank=rank: rank)
            stopped = make(per_rank)
            batches = [batch for batch, _ in zip(stopped, range(done), strict=False)] if done else []
            resumed = make(per_rank)
            resumed.load_state_dict({**stopped.state_dict(), "batches_done": done})
            batches += list(resumed)
            for batch in batches:
                check(batch, "x", rows)
            shares.append([batch["index"].tolist() for batch in batches])
    joined_again = [sum(parts, []) for parts in zip(*shares, strict=True)] if shuffle else shares[0]
    assert joined_again == orders


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_taken_rows_are_those_rows(lengths, data):
    rows = rows_of(lengths, (2,))
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    for column in (Ragged.from_rows(rows), Ragged.from_rows(rows).to(torch.device("cpu"))):
        taken = column.take(np.array(index))
        assert len(taken) == len(index)
        values, sizes = taken.read(np.arange(len(index)))
        expected, expected_sizes = padded(rows, index)
        assert torch.equal(values, expected) and sizes.tolist() == expected_sizes


def test_a_part_of_the_values_is_moved_and_measured_alone():
    column = Ragged(np.arange(100.0).reshape(50, 2), [10, 12, 12, 15])
    assert column.shape == (3, None, 2) and column.nbytes == 5 * 2 * 8
    moved = column.to(torch.device("cpu"))
    assert len(moved.values) == 5 and torch.equal(moved[np.arange(3)], column[np.arange(3)])
    assert content_digest(Ragged(column.values[10:15], [0, 2, 2, 5])) == content_digest(column)


def test_rows_are_counted_from_the_end_too():
    column = Ragged(np.arange(9.0), [1, 3, 4, 8])
    values, sizes = column.read(np.array([-1, 0]))
    assert values.tolist() == [[4, 5, 6, 7], [1, 2, 0, 0]] and sizes.tolist() == [[4], [2]]
    assert column.take(np.array([-3]))[np.array([0])].tolist() == [[1, 2]]


def test_a_read_only_memory_map_is_copied_to_the_device(tmp_path):
    np.save(tmp_path / "values.npy", np.arange(9.0))
    values = np.load(tmp_path / "values.npy", mmap_mode="r")
    for column in (values, Ragged(values, [2, 4, 9])):
        data = ArrayImages(batch_size=1)
        data.columns = lambda split, column=column: {"x": column}
        (found,) = data.train_dataloader().columns.values()
        tensor = found.values if isinstance(found, Ragged) else found
        tensor += 1  # which the file neither allows nor sees
    assert tensor.tolist() == [3, 4, 5, 6, 7, 8, 9] and values[2] == 2


def test_a_split_without_files_has_a_digest_and_no_batches():
    empty = decoded([])
    assert content_digest(empty) == content_digest(decoded([])) != content_digest(decoded([], (2,)))
    assert list(BatchLoader({"x": empty}, dict, batch_size=2)) == []


@pytest.mark.parametrize("offsets", [[], [[0, 1]], [0.0, 1.0], [0, 3, 2], [-1, 2], [0, 6]])
def test_offsets_that_do_not_cut_are_refused(offsets):
    with pytest.raises(ValueError, match=r"Cannot cut .* Give"):
        Ragged(np.zeros((5, 4)), offsets)


def test_a_taken_name_is_refused():
    columns = {"boxes": Ragged.from_rows(rows_of([1, 2], (4,))), "boxes_size": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"'boxes_size'.*Rename"):
        BatchLoader(columns, dict, batch_size=1)


def test_images_of_their_own_size_tell_it_and_images_of_one_size_need_not(tmp_path):
    rows = [np.full((3, 2 + k, 5 - k), k + 1, np.uint8) for k in range(3)]
    column = Decoded(
        files=in_files(tmp_path, rows), decode=np.load, row_shape=(3, None, None), dtype=np.dtype(np.uint8)
    )
    batch = next(iter(BatchLoader({"image": column}, dict, batch_size=3)))
    assert batch["image"].shape == (3, 3, 4, 5) and batch["image_size"].tolist() == [[2, 5], [3, 4], [4, 3]]
    for image, row in zip(batch["image"], rows, strict=True):
        assert (image[:, : row.shape[1], : row.shape[2]].numpy() == row).all() and image.sum() == row.sum()
    same = Decoded(files=[tmp_path / "1.npy"] * 4, decode=np.load, row_shape=(3, 3, 4), dtype=np.dtype(np.uint8))
    assert set(next(iter(BatchLoader({"image": same}, dict, batch_size=2)))) == {"image", "index"}


def test_files_are_decoded_side_by_side_ahead_of_use_and_in_order():
    at_once, most, lock = 0, 0, threading.Lock()

    def slow(file):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.001 * (5 - int(file.name) % 5))  # the first of a batch take longest
        with lock:
            at_once -= 1
        return np.full(1, int(file.name), np.int64)

    column = Decoded(
        files=list(map(str, range(24))), decode=slow, row_shape=(1,), dtype=np.dtype(np.int64), num_threads=3
    )
    found = [batch["x"].flatten().tolist() for batch in BatchLoader({"x": column}, dict, batch_size=8)]
    assert sum(found, []) == list(range(24)) and 1 < most <= 3


@pytest.mark.parametrize(
    ("decode", "found"),
    [
        (lambda file: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda file: None, "it cannot be read"),
        (lambda file: np.zeros((2, 4)), r"decoded to float64 \(2, 4\), but rows are float32 \(None, 4\)"),
        (lambda file: np.zeros((2, 3), np.float32), r"decoded to float32 \(2, 3\)"),
        (lambda file: np.zeros(4, np.float32), r"decoded to float32 \(4,\)"),
    ],
)
def test_the_first_undecodable_file_is_named(tmp_path, decode, found):
    files = in_files(tmp_path, rows_of([1] * 6, (4,)))
    column = Decoded(
        files=files,
        decode=lambda file: decode(file) if int(file.stem) >= 3 else np.load(file),
        row_shape=(None, 4),
        dtype=np.dtype(np.float32),
    )
    batches = iter(BatchLoader({"x": column}, dict, batch_size=2))
    next(batches)
    with pytest.raises(ValueError, match=rf"^Cannot \w+ \S*3\.npy: .*{found}"):
        next(batches)


def test_a_file_is_read_again_where_python_fails_by_chance(tmp_path):
    failures = iter([True, False, True, True])

    def decode(file):
        if next(failures):
            raise SystemError("AST constructor recursion depth mismatch (before=36, after=33)")
        return np.load(file)

    (file,) = in_files(tmp_path, rows_of([2], (4,)))
    column = Decoded(files=[file], decode=decode, row_shape=(None, 4), dtype=np.dtype(np.float32))
    assert column[np.arange(1)].shape == (1, 2, 4)
    with pytest.raises(ValueError, match=r"^Cannot decode .*0\.npy: SystemError"):
        column.read(np.arange(1))


def test_pickled_rows_of_strangers_are_not_loaded(tmp_path):
    np.save(tmp_path / "0.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"0\.npy: ValueError: Object arrays cannot be loaded"):
        decoded([tmp_path / "0.npy"]).read(np.arange(1))


def test_the_digest_notices_changed_values_offsets_and_files_but_not_their_place(tmp_path):
    rows = rows_of([2, 3], (4,))
    changed = [rows[0], rows[1] + 1]
    assert content_digest(Ragged.from_rows(rows)) == content_digest(Ragged.from_rows(list(map(np.copy, rows))))
    assert len({content_digest(Ragged.from_rows(each)) for each in (rows, changed, rows[::-1])}) == 3
    moved = Ragged(np.concatenate(rows), [0, 3, 5])
    assert content_digest(moved) != content_digest(Ragged.from_rows(rows))

    def digest(name, rows):
        (tmp_path / name).mkdir()
        return content_digest(decoded(in_files(tmp_path / name, rows), (4,)))

    assert digest("a", rows) == digest("b", rows)
    assert len({digest("c", rows), digest("d", changed), digest("e", rows[::-1])}) == 3


def cut(file, length):
    return np.load(file)[:length]


def test_the_digest_of_files_notices_another_length_of_rows_and_large_data_is_sampled(tmp_path, monkeypatch):
    files = in_files(tmp_path, rows_of([4] * 20, ()))
    columns = [
        Decoded(files=files, decode=partial(cut, length=n), row_shape=(None,), dtype=np.dtype(np.float32))
        for n in (3, 4)
    ]
    assert len(set(map(content_digest, columns))) == 2
    monkeypatch.setattr("ssl_lab.data.fingerprint._WHOLE_BYTES", 100)
    monkeypatch.setattr("ssl_lab.data.fingerprint._PART_BYTES", 500)
    before = content_digest(columns[1])
    np.save(files[0], np.ones(4, np.float32))
    assert content_digest(columns[1]) != before
    Path(files[7]).unlink()
    with pytest.raises(ValueError, match=r"7\.npy"):
        content_digest(columns[1])


class Boxes(ArrayImages):
    """ArrayImages with up to four boxes each, and audio that is decoded late."""

    def __init__(self, files, **settings):
        super().__init__(**settings)
        self.boxes = rows_of([k % 5 for k in range(self.num_samples)], (4,))
        self.files = [files[k % len(files)] for k in range(self.num_samples)]

    def columns(self, split):
        return {**super().columns(split), "boxes": Ragged.from_rows(self.boxes), "audio": decoded(self.files)}


def test_a_data_module_hands_out_ragged_and_decoded_columns(tmp_path):
    data = Boxes(in_files(tmp_path, rows_of([3, 1], ())), batch_size=8, eval_batch_size=8)
    for batches in (data.train_dataloader(), data.eval_dataloader("val", max_samples=11)):
        batch = next(iter(batches))
        check(batch, "boxes", data.boxes)
        assert batch["audio_size"].flatten().tolist() == [3 - 2 * (k % 2) for k in batch["index"].tolist()]
    assert sum(len(batch["index"]) for batch in data.eval_dataloader("val", max_samples=11)) == 11
    assert isinstance(data.train_dataloader().columns["boxes"].values, torch.Tensor), "kept on the device, as it fits"
    small = Boxes(data.files, batch_size=8, device_cache_gib=0)
    assert isinstance(small.train_dataloader().columns["boxes"].values, np.ndarray)
    assert data.fingerprint == small.fingerprint
