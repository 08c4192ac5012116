"""Four kills of the hundred that ``make soak`` makes at random moments."""

import pytest
from soak.kills import soak


@pytest.mark.slow
def test_runs_that_are_killed_end_with_the_same_bits(tmp_path):
    rows, unequal, runs = soak(tmp_path, kills=4, seed=1, kills_per_run=2, methods=["simclr", "gan"])
    assert len(rows) == 4 and runs >= 2
    assert not unequal
