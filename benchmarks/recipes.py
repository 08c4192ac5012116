"""The recipes of conf/experiment, several seeds each: scores of the last checkpoint, never of the best.

    python benchmarks/recipes.py --runs DIR --json benchmarks/results/recipes_cifar10.json -- trainer=gpu compile=true

trains all methods on CIFAR-10 for 200 epochs on one GPU. Where there is none, the same script at a small scale:

    python benchmarks/recipes.py --runs DIR --experiments simclr_digits --epochs 2 --seeds 0 1

A run that is finished is read, not repeated.
"""

import argparse
import statistics
from pathlib import Path

from command import of_encoder, pretrain, read, write_json
from quality import METHODS

EXPERIMENTS = [f"{method}_cifar10" for method in METHODS]
COLUMNS = {"knn/top1": "kNN", "linear/top1": "linear probe"}


def spread(values):
    """Mean, and deviation where there are several."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def train(experiment, args):
    """Each seed's scores of the encoder and summary of the run."""
    results = []
    for seed in args.seeds:
        overrides = [f"experiment={experiment}", f"trainer.max_epochs={args.epochs}", f"seed={seed}", *args.overrides]
        results.append(read(pretrain(args.runs / f"{experiment}_{seed}", *overrides)))
    return results


def line(name, results):
    """A row of the table: means and deviations over seeds."""
    cells = [spread([100 * of_encoder(result)[column] for result in results]) for column in COLUMNS]
    minutes = spread([result["summary"]["training_time_sec"] / 60 for result in results])
    return "| " + " | ".join([name, *cells, minutes, str(len(results))]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of all runs, after --")
    args = parser.parse_args()

    results = {name: train(name, args) for name in args.experiments}
    print("| | " + " | ".join([*COLUMNS.values(), "training, minutes", "seeds"]) + " |")
    print("|" + "---|" * (len(COLUMNS) + 3))
    for name, runs in results.items():
        print(line(name, runs))
    write_json(results, args.json)


if __name__ == "__main__":
    main()
