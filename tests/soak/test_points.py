"""Twelve kills of the hundred that ``make soak`` makes at chosen changes of files."""

import subprocess
import sys
from pathlib import Path

COMMANDS = ["export hf again", "leaderboard --update", "dashboard --out again", "leaderboard --out"]


def test_commands_killed_between_two_changes_of_files_end_as_in_peace(tmp_path):
    points = Path(__file__).parent / "points.py"
    command = [sys.executable, str(points), "--kills", "12", "--seed", "1", "--keep", str(tmp_path), "--runs", "mlm"]
    done = subprocess.run([*command, "--commands", *COMMANDS], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 kills of 4 commands: after 12 of 12 every file is as in peace." in done.stdout
