"""What the hundred kills that ``make soak`` makes at random moments cover, and one of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from soak.trainings import TRAININGS

CONF = Path(__file__).parents[2] / "conf"


def test_every_method_and_every_task_is_killed():
    methods = {f"method={path.stem}" for path in (CONF / "method").glob("*.yaml")}
    tasks = {f"task={path.stem}" for path in (CONF / "task").glob("*.yaml")}
    assert len(methods) > 20 and len(tasks) >= 5
    assert methods == {arg for each in TRAININGS for arg in each.args if arg.startswith("method=")}
    assert tasks == {arg for each in TRAININGS for arg in each.args if arg.startswith("task=")}
    assert len({each.name for each in TRAININGS}) == len(TRAININGS) == len(methods) + len(tasks)


@pytest.mark.slow
def test_a_training_that_is_killed_ends_with_every_file_as_in_peace():
    kills = Path(__file__).parent / "kills.py"
    command = [sys.executable, str(kills), "--kills", "1", "--seed", "1", "--commands", "simclr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills (1 SIG" in done.stdout and "ended with every file as in peace" in done.stdout
