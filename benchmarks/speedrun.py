"""Speedrun: wall time of label-free pretraining until a frozen ResNet-18 reaches 90 % on CIFAR-10.

    python benchmarks/speedrun.py --runs DIR --json benchmarks/results/speedrun.json

Rules: one GPU; no label before the probe; the linear probe of the last checkpoint on the test split; time of training as
a run's summary has it, mean over five seeds; compilation apart, by a run of one epoch before, after which the compiler's
cache is warm. The same script at a small scale on a CPU:

    python benchmarks/speedrun.py --runs DIR --seeds 0 1 --epochs 2 -- data=digits encoder=convnet trainer=cpu compile=false
"""

import argparse
import statistics
from pathlib import Path

from command import of_encoder, pretrain, read, write_json

RECIPE = [
    "experiment=simclr_cifar10",
    "trainer=gpu",
    "compile=true",
    "data.batch_size=512",
    "optim.lr=0.8",
    "optim.warmup_fraction=0.1",
    "method.views.first.blur_prob=0",
    "evaluate_every_n_epochs=1000",
]
MEDALS = {"gold": 2.5, "silver": 6, "bronze": 15}  # minutes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--target", type=float, default=90.0, help="%%")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of the recipe, after --")
    args = parser.parse_args()

    recipe = [*RECIPE, *args.overrides]
    pretrain(args.runs / "compilation", *recipe, "trainer.max_epochs=1", "evaluation=none")
    runs, accuracies, minutes = [], [], []
    for seed in args.seeds:
        run = read(pretrain(args.runs / str(seed), *recipe, f"trainer.max_epochs={args.epochs}", f"seed={seed}"))
        runs.append(run)
        accuracies.append(100 * of_encoder(run)["linear/top1"])
        minutes.append(run["summary"]["training_time_sec"] / 60)
        print(f"seed {seed}: {accuracies[-1]:.2f} %, {minutes[-1]:.2f} minutes", flush=True)
    accuracy, time = statistics.mean(accuracies), statistics.mean(minutes)
    print(f"mean of {len(runs)}: {accuracy:.2f} % in {time:.2f} minutes on {run['summary']['hardware']}")
    if accuracy < args.target:
        print(f"below {args.target} %")
    elif (args.seeds, args.target) == ([0, 1, 2, 3, 4], 90.0) and all(
        o.startswith("data.root=") for o in args.overrides
    ):
        print(next((medal for medal, limit in MEDALS.items() if time <= limit), "no medal"))
    write_json({"epochs": args.epochs, "recipe": recipe, "runs": runs}, args.json)


if __name__ == "__main__":
    main()
