"""Kill runs at random moments with random signals, start them again, and compare every bit with runs that were left alone.

    python tests/soak/kills.py --kills 100 --seed 0 --log docs/reliability.md

Each method is trained once in peace. Then the same command runs in a new directory and is killed again and again, a third of
the times at any moment from its start on, otherwise at a moment of its training; after a given number of kills it is left
to finish. Weights, optimizers, random streams, position in the data and all that was logged but speeds must equal those
of the run in peace, bit by bit. Signals, moments and seeds are printed.
"""

import argparse
import csv
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

COMMAND = [sys.executable, "-m", "ssl_lab.cli.main", "pretrain", "trainer=cpu", "evaluate_every_n_epochs=3"]
COMMAND += ["save_every_n_steps=7", "trainer.log_every_n_steps=1"]
SMALL_IMAGES = ["data=digits", "encoder=convnet", "encoder.widths=[8,16]", "data.batch_size=64"]
VIEWS = [*SMALL_IMAGES, "views@method.views=digits", "evaluation=none", "method.hidden_dim=32"]
METHODS = {
    "simclr": ["method=simclr", *VIEWS, "callbacks=online_probes", "trainer.max_epochs=20"],
    "byol": ["method=byol", *VIEWS, "trainer.max_epochs=15"],
    "mlm": [
        *(
            "experiment=mlm_python_docs",
            "encoder=bert_tiny",
            "data.batch_size=8",
            "data.max_length=32",
            "evaluation=none",
        ),
        *("trainer.max_epochs=-1", "trainer.max_steps=150"),
    ],
    "vae": [
        "method=vae",
        *SMALL_IMAGES,
        "method.latent_dim=8",
        *("evaluation=none", "trainer.max_epochs=15", "trainer.accumulate_grad_batches=4"),
    ],
    "gan": ["experiment=gan_digits", "data.batch_size=64", "evaluation=none", "trainer.max_epochs=8"],
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "data_position", "global_step")


def start(name, run_dir):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    return subprocess.Popen(
        [*COMMAND, *METHODS[name], f"run_dir={run_dir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )


def finish(name, run_dir):
    """Run to the end; seconds from the start of the process to the end."""
    began = time.time()
    process = start(name, run_dir)
    output, _ = process.communicate(timeout=1800)
    if process.returncode != 0:
        raise AssertionError(f"{name} ended with {process.returncode} in {run_dir}:\n{output[-3000:]}")
    return time.time() - began


def in_peace(name, run_dir):
    """Train without interruption; seconds from the start to the first sign of training, and to the end."""
    began = time.time()
    end = finish(name, run_dir)
    return json.loads((run_dir / "heartbeat.json").read_text())["time"] - began, end


def kill_once(name, run_dir, moments, draw):
    """Start, kill at a random moment; what was sent, when, and at which step the run was. None if it had finished before."""
    number = draw.choice(SIGNALS)
    anywhere = draw.random() < 1 / 3
    train_start, end = moments
    wait = draw.uniform(0, end) if anywhere else draw.uniform(0, 0.8 * (end - train_start))
    heartbeat = run_dir / "heartbeat.json"
    heartbeat.unlink(missing_ok=True)
    process = start(name, run_dir)
    while not anywhere and process.poll() is None and not heartbeat.is_file():
        time.sleep(0.02)
    try:
        output, _ = process.communicate(timeout=wait)
        if process.returncode != 0:
            raise AssertionError(f"{name} failed by itself:\n{output[-3000:]}")
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    if "Traceback" in output:
        raise AssertionError(f"{number.name} left a traceback of {name}:\n{output[-3000:]}")
    moment = f"{wait:.2f} s after {'its start' if anywhere else 'its first batch'}"
    return {"signal": number.name, "moment": moment, "returncode": process.returncode}


def has_finished(run_dir):
    summary = run_dir / "summary.json"
    return summary.is_file() and json.loads(summary.read_text())["status"] == "finished"


def differences(run_dir, peace):
    """Names of what is not bit-equal."""
    runs = [torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (run_dir, peace)]
    found = [part for part in COMPARED if not same(*(run.get(part) for run in runs))]
    if metrics(run_dir) != metrics(peace):
        found.append("metrics.csv")
    return found


def metrics(run_dir):
    """Rows of metrics.csv without speeds."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{name: row[name] for name in row if not name.startswith("perf/")} for row in csv.DictReader(file)]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def soak(folder, *, kills, seed, kills_per_run, methods, say=print):
    """Rows of all kills, and of all runs what was not equal."""
    draw = random.Random(seed)
    peace, rows, unequal, runs = {}, [], {}, 0
    while len(rows) < kills:
        for name in methods:
            if len(rows) >= kills:
                break
            if name not in peace:
                peace[name] = in_peace(name, folder / f"{name}_peace")
                say(f"{name} in peace: training from {peace[name][0]:.1f} s on, end after {peace[name][1]:.1f} s")
            run_dir = folder / f"{name}_{runs}"
            runs += 1
            wanted = min(kills_per_run, kills - len(rows))
            while wanted and not has_finished(run_dir):
                killed = kill_once(name, run_dir, peace[name], draw)
                if killed is None:
                    break  # it had come to its end; the next run takes the kills that are left
                rows.append({"kill": len(rows) + 1, "run": run_dir.name, **killed})
                say(" ".join(f"{key} {value}" for key, value in rows[-1].items()))
                wanted -= 1
            finish(name, run_dir)
            found = differences(run_dir, folder / f"{name}_peace")
            say(f"{run_dir.name} finished: {'bit-equal' if not found else 'NOT equal: ' + ', '.join(found)}")
            unequal |= {run_dir.name: found} if found else {}
    return rows, unequal, runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--log", type=Path, metavar="FILE", help="Markdown page with the figures and all lines")
    args = parser.parse_args()
    lines = []

    def say(line):
        print(line, flush=True)
        lines.append(line)

    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "kills": args.kills,
            "seed": args.seed,
            "kills_per_run": args.kills_per_run,
            "methods": args.methods,
        }
        rows, unequal, runs = soak(Path(folder), **settings, say=say)
    counts = Counter(row["signal"] for row in rows)
    summary = (
        f"{len(rows)} kills ({', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}) of {runs} runs: "
        f"{runs - len(unequal)} of {runs} went on to the end and are bit-equal to the run in peace."
    )
    say(summary)
    if args.log:
        command = (
            f"python tests/soak/kills.py --kills {args.kills} --kills-per-run {args.kills_per_run} --seed {args.seed}"
        )
        args.log.write_text(page(summary, command, lines[:-1], time.time() - begun))
    return 1 if unequal else 0


def page(summary, command, lines, seconds):
    described = (__doc__ or "").strip().split("\n\n")
    commands = "\n".join(f"- {name}: `{' '.join(['ssl-lab', *COMMAND[3:], *METHODS[name]])}`" for name in METHODS)
    log = "\n".join(f"    {line}" for line in lines)
    return (
        f"# Reliability\n\n**{summary}**\n\n{described[-1]}\n\n    {command}\n\n"
        f"{seconds / 60:.0f} minutes on {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"Python {platform.python_version()}. `make soak` repeats it.\n\n{commands}\n\n## Log\n\n{log}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
