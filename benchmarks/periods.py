"""The period of ``ssl-lab pretrain`` beside that of a bare PyTorch loop, for the scripts beside this file.

A period is the time from the start of one step to the start of the next, so that everything between two steps counts: data,
logging, ends of epochs. Both run in one process and in turns. The mean over a run's steps is taken, the first ones left out,
and the medians over several runs.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import lightning
import torch
from command import write_json
from hydra import compose, initialize_config_dir

from ssl_lab.cli.build import build_data, build_method
from ssl_lab.cli.main import main as ssl_lab
from ssl_lab.cli.paths import config_dir

WARM_UP = 20  # steps left out


def now():
    """Wall and processor time."""
    return time.perf_counter(), time.process_time()


def build(overrides):
    """Data and method as the command builds them."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", overrides)
    torch.manual_seed(0)
    data = build_data(cfg.data, seed=0)
    return data, build_method(cfg, data.spec)


def batches(images, batch_size):
    """Shuffled batches of images without end, incomplete ones left out."""
    while True:
        yield from (images[rows] for rows in torch.randperm(len(images)).split(batch_size) if len(rows) == batch_size)


def command(method_class, overrides, *, num_steps):
    """Start times of the steps of ``ssl-lab pretrain``, with all of its callbacks, loggers and checkpoints."""
    starts = []
    training_step = method_class.training_step

    def timed(self, batch, batch_idx):
        starts.append(now())
        return training_step(self, batch, batch_idx)

    method_class.training_step = timed
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            settings = [f"run_dir={folder}/run", f"trainer.max_steps={num_steps}", "evaluation=none"]
            assert ssl_lab(["pretrain", *overrides, *settings]) == 0
    finally:
        method_class.training_step = training_step
    return starts


def mean_period_ms(starts):
    """Mean wall and processor time from one step's start to the next one's."""
    first, last = starts[WARM_UP], starts[-1]
    return [1000 * (b - a) / (len(starts) - 1 - WARM_UP) for a, b in zip(first, last, strict=True)]


def main(doc, bare_loop, method_class, overrides):
    """Measure both, print the figures, and write them where ``--json`` says.

    Args:
        doc: What ``--help`` says.
        bare_loop: ``(overrides, num_steps=N)`` to the start times of a loop's steps.
        method_class: The method whose steps are timed.
        overrides: Settings of both; further ones come from the command line.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=150)
    parser.add_argument("--num-runs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", help="further settings of both, such as encoder.width=32")
    args = parser.parse_args()

    overrides = [*overrides, "trainer=cpu", "trainer.max_epochs=-1", *args.overrides]
    torch.set_num_threads(1)
    periods = {"bare loop": [], "ssl-lab pretrain": []}
    for repeat in range(args.num_runs + 1):
        for name in periods:
            if name == "bare loop":
                starts = bare_loop(overrides, num_steps=args.num_steps)
            else:
                starts = command(method_class, overrides, num_steps=args.num_steps)
            if repeat > 0:  # the first pair only warms up
                periods[name].append(mean_period_ms(starts))
    result = {}
    for k, clock in enumerate(("wall", "processor")):
        bare, ours = ([period[k] for period in periods[name]] for name in periods)
        ratios = sorted(b / a for a, b in zip(bare, ours, strict=True))
        result[f"{clock}_time"] = {
            "bare_loop_ms": statistics.median(bare),
            "ssl_lab_ms": statistics.median(ours),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
        }
    result |= {
        "overrides": overrides,
        "steps_per_run": args.num_steps,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": f"{platform.machine()}, {platform.system()}, 1 thread",
    }
    print(json.dumps(result, indent=2))
    write_json(result, args.json)
