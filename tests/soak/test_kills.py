"""Ten kills of the hundred that ``make soak`` makes."""

import pytest
from soak.kills import soak


@pytest.mark.slow
def test_runs_that_are_killed_end_with_the_same_bits(tmp_path):
    rows, unequal, runs = soak(tmp_path, kills=10, seed=1, kills_per_run=4, methods=["simclr", "gan", "vae"])
    assert len(rows) == 10 and runs >= 3
    assert not unequal
