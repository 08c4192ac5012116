"""Processor time of commands until they answer, and of a run of one step, beside the imports that nobody can leave out.

    python benchmarks/startup.py --json benchmarks/results/startup.json

Each is a separate process, in turn, in an empty folder with one thread. The table shows medians of user and
system time. ``bare`` is ``import torch, lightning`` alone. The first round, which fills the caches of the file
system, does not count.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ONE_STEP = "evaluation=none pictures_every_n_epochs=null trainer.max_epochs=-1 trainer.max_steps=1 run_dir=run"
COMMANDS = {
    "bare: import torch, lightning": "import torch, lightning",
    "import ssl_lab": "import ssl_lab",
    "ssl-lab --help": ["--help"],
    "ssl-lab pretrain --help": ["pretrain", "--help"],
    "ssl-lab pretrain experiment=simclr_digits --cfg job": ["pretrain", "experiment=simclr_digits", "--cfg", "job"],
    "a typo": ["pretrain", "experiment=simclr_digits", "method.temprature=1"],
    "a SimCLR run of one step": ["pretrain", "experiment=simclr_digits", *ONE_STEP.split()],
}


def processor_time(command):
    """Seconds of user and system time of one process."""
    executable = Path(sys.executable).with_name("ssl-lab")
    words = [sys.executable, "-c", command] if isinstance(command, str) else [executable, *command]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "temprature" not in str(command):
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the times of all rounds there")
    args = parser.parse_args()
    times = {name: [] for name in COMMANDS}
    for k in range(args.repeats + 1):
        for name, command in COMMANDS.items():
            seconds = processor_time(command)
            if k > 0:
                times[name].append(round(seconds, 3))
    bare = times[next(iter(COMMANDS))]
    print("| process | processor time | times bare |\n|:--|--:|--:|")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, bare, strict=True))
        print(f"| {name} | {statistics.median(found):.2f} s | {ratio:.2f} |")
    if args.json:
        args.json.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main()
