"""What ``ssl-lab pretrain`` adds to a training step: the command against a bare PyTorch loop of the same SimCLR step.

    python benchmarks/overhead.py --json benchmarks/results/overhead.json

Both train the same network on the same digits with the same views, loss and optimizer, in one process and in turns.
The command runs as a user starts it, with all of its callbacks, loggers and checkpoints. A period is the time from the
start of one step to the start of the next, so that everything between two steps counts: data, logging, ends of epochs.
The mean over a run's steps is compared, the first ones left out; the medians over several runs are reported.
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

from ssl_lab.cli.config import build_data, build_method
from ssl_lab.cli.main import main as ssl_lab
from ssl_lab.cli.paths import config_dir
from ssl_lab.losses.contrastive import nt_xent
from ssl_lab.methods.simclr import SimCLR

WARM_UP = 20  # steps left out


def bare_loop(overrides, *, num_steps):
    """Start times of the steps of a plain loop."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", overrides)
    torch.manual_seed(0)
    data = build_data(cfg.data, seed=0)
    method = build_method(cfg, data.spec)
    optimizer, schedule = method.optim.build(method, total_steps=num_steps)
    images = data.columns("pretrain")["image"]
    starts = []
    while len(starts) < num_steps:
        for index in torch.randperm(len(images)).split(data.batch_size)[: len(images) // data.batch_size]:
            starts.append((time.perf_counter(), time.process_time()))
            h = method.encoder(method.views(images[index]).flatten(0, 1))
            z_a, z_b = method.projector(h).chunk(2)
            loss = nt_xent(z_a, z_b, temperature=method.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return starts[:num_steps]


def command(overrides, *, num_steps):
    """Start times of the steps of ``ssl-lab pretrain``."""
    starts = []
    training_step = SimCLR.training_step

    def timed(self, batch, batch_idx):
        starts.append((time.perf_counter(), time.process_time()))
        return training_step(self, batch, batch_idx)

    SimCLR.training_step = timed
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            settings = [f"run_dir={folder}/run", f"trainer.max_steps={num_steps}", "evaluation=none"]
            assert ssl_lab(["pretrain", *overrides, *settings]) == 0
    finally:
        SimCLR.training_step = training_step
    return starts


def mean_period_ms(starts):
    """Mean wall and processor time from one step's start to the next one's."""
    first, last = starts[WARM_UP], starts[-1]
    return [1000 * (b - a) / (len(starts) - 1 - WARM_UP) for a, b in zip(first, last, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=150)
    parser.add_argument("--num-runs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", help="further settings of both, such as encoder.widths=[16,32,64]")
    args = parser.parse_args()

    overrides = ["experiment=simclr_digits", "trainer=cpu", "trainer.max_epochs=-1", "data.batch_size=128"]
    overrides += args.overrides
    torch.set_num_threads(1)
    periods = {"bare loop": [], "ssl-lab pretrain": []}
    for repeat in range(args.num_runs + 1):
        for name, run in (("bare loop", bare_loop), ("ssl-lab pretrain", command)):
            period = mean_period_ms(run(overrides, num_steps=args.num_steps))
            if repeat > 0:  # the first pair only warms up
                periods[name].append(period)
    result = {}
    for k, clock in enumerate(("wall", "processor")):
        bare, ours = ([period[k] for period in periods[name]] for name in ("bare loop", "ssl-lab pretrain"))
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


if __name__ == "__main__":
    main()
