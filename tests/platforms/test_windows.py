"""Commands without the names of POSIX, see ``windows.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ssl_lab

ROOT = Path(ssl_lab.__file__).parents[1]


def on_windows(*args, cwd):
    """``ssl-lab`` without the names of POSIX, writing cp1252 to a pipe; files that name no encoding are ASCII."""
    env = {**os.environ, "PYTHONIOENCODING": "cp1252", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/windows.py", *args], cwd=cwd, env=env, capture_output=True, timeout=300
    )
    output = (done.stdout + done.stderr).decode("cp1252")
    assert done.returncode == 0, output[-3000:]
    return output


def test_a_run_trains_and_resumes_without_posix(tmp_path):
    run = ["pretrain", "experiment=simclr_digits", "trainer=smoke", "run_dir=run", "force=true"]
    output = on_windows(*run, "trainer.max_steps=2", cwd=tmp_path)
    assert "SimCLR encoder" in output
    assert json.loads((tmp_path / "run/summary.json").read_text(encoding="utf-8"))["status"] == "finished"
    assert "resumed from last.ckpt" in on_windows(*run, "trainer.max_steps=3", cwd=tmp_path)
