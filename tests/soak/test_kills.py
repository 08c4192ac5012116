"""One kill of the hundred that ``make soak`` makes at random moments."""

import pytest
from soak.kills import soak


@pytest.mark.slow
def test_runs_that_are_killed_end_with_the_same_bits(tmp_path):
    rows, unequal, runs = soak(tmp_path, kills=1, seed=1, kills_per_run=1, methods=["simclr"])
    assert len(rows) == 1 and runs >= 1
    assert not unequal
