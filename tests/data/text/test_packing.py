import numpy as np
import pytest

from ssl_lab.data.text.packing import best_fit_decreasing


def filled(lengths, rows):
    return np.bincount(rows, weights=lengths)


def slow_number_of_rows(lengths, capacity):
    """The textbook loop: longest first, into the fullest row with room."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [k for k, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda k: rooms[k])] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@pytest.mark.parametrize("capacity", [1, 7, 32, 100])
@pytest.mark.parametrize("seed", range(3))
def test_fills_rows_as_the_textbook_loop_does(capacity, seed):
    lengths = np.random.default_rng(seed).integers(1, capacity + 1, size=300)
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(capacity - filled(lengths, rows)) == slow_number_of_rows(lengths.tolist(), capacity)


def test_rows_are_numbered_by_their_first_piece():
    rows = best_fit_decreasing(np.array([5, 8, 3, 8, 2, 2, 4]), 8)
    assert rows.tolist() == [0, 1, 0, 2, 3, 3, 3]


def test_a_million_pieces_leave_little_padding():
    lengths = np.minimum(np.random.default_rng(0).geometric(0.02, size=1_000_000), 512)
    rows = best_fit_decreasing(lengths, 512)
    assert filled(lengths, rows).max() <= 512
    assert lengths.sum() / ((rows.max() + 1) * 512) > 0.999
    assert np.array_equal(rows, best_fit_decreasing(lengths, 512))


def test_no_piece_is_no_row():
    assert len(best_fit_decreasing(np.zeros(0, dtype=np.int64), 8)) == 0


@pytest.mark.parametrize("length", [0, 9])
def test_a_piece_that_cannot_be_placed(length):
    with pytest.raises(ValueError, match="do not fit into rows of 8"):
        best_fit_decreasing(np.array([length, 8]), 8)
