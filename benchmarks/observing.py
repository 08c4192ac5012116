"""What pictures and dashboards add to ``ssl-lab pretrain``, in turns in one process.

    python benchmarks/observing.py --json benchmarks/results/observing.json

SimCLR on digits with a round of pictures every 25 epochs (100 steps), as the experiment has it: 204 steps with two
rounds, W&B offline. Evaluation is left out.
"""

import argparse
import json
import statistics
from pathlib import Path

import periods
import torch
from command import write_json

from ssl_lab.methods.simclr import SimCLR

SETTINGS = {
    "nothing": ["logger=csv", "pictures_every_n_epochs=null"],
    "pictures": ["logger=csv"],
    "pictures, TensorBoard and W&B": ["logger=all"],
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: [] for name in SETTINGS}
    for repeat in range(args.num_runs + 1):
        for name, settings in SETTINGS.items():
            overrides = ["experiment=simclr_digits", "trainer=cpu", "trainer.max_epochs=-1", *settings]
            period = periods.mean_period_ms(periods.command(SimCLR, overrides, num_steps=204))
            if repeat > 0:  # the first ones only warm up
                found[name].append(period)
    result = {}
    for k, clock in enumerate(("wall", "processor")):
        first = [period[k] for period in found["nothing"]]
        result[f"{clock}_time"] = {
            name: {
                "ms": statistics.median(period[k] for period in periods_),
                "ratio": statistics.median(period[k] / a for period, a in zip(periods_, first, strict=True)),
            }
            for name, periods_ in found.items()
        }
    print(json.dumps(result, indent=2))
    write_json(result, args.json)
