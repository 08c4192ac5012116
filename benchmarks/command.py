"""Runs of ``ssl-lab`` for the scripts beside this file."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import yaml


def ssl_lab(*words):
    """Print a command and run it; what it prints, or the end of all with its message if it fails."""
    print(shlex.join(["ssl-lab", *map(str, words)]), flush=True)
    executable = Path(sys.executable).with_name("ssl-lab")
    run = subprocess.run([executable, *map(str, words)], capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(run.stderr)
    return run.stdout


def pretrain(folder, *overrides):
    """Pretrain in a run directory, unless it holds a finished run of the same overrides."""
    overrides = [*map(str, overrides), f"run_dir={folder}"]
    summary = folder / "summary.json"
    if not summary.exists() or json.loads(summary.read_text())["status"] != "finished":
        ssl_lab("pretrain", *overrides)
    elif sorted(yaml.safe_load((folder / "overrides.yaml").read_text())) != sorted(overrides):
        raise SystemExit(f"{folder} holds a run of other settings. Remove it, or choose another folder.")
    return folder


def read(folder, evaluation="evaluation.json"):
    """Metrics of each row of an evaluation, and the run's summary."""
    rows = json.loads((folder / evaluation).read_text())["rows"]
    return {
        "scores": {row["name"]: row["metrics"] for row in rows},
        "summary": json.loads((folder / "summary.json").read_text()),
    }


def of_encoder(result):
    """Metrics of the pretrained encoder, the last row of an evaluation."""
    return list(result["scores"].values())[-1]


def write_json(figures, file):
    """Write figures to a file, or nowhere if it is None."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=2) + "\n")
