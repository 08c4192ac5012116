r"""Generative pretraining of Fashion-MNIST on the CPU: samples judged on a named encoder, features by the usual probes.

    python benchmarks/generative.py --root DIR_OF_FASHION_MNIST --judge SIMCLR_RUN --runs DIR \
        --json benchmarks/results/generative_fashion_mnist.json

Each line is one ``ssl-lab pretrain`` command, printed before it starts, of an experiment in ``conf/experiment`` with the
settings below. The judge is a finished run of SimCLR on the same data: its encoder gives the features of the sample metrics,
and its own probes stand beside. The table shows the last checkpoint on the test split. A run that is finished is read, not
repeated.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from command import pretrain, read, write_json

SHARED = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "evaluate_every_n_epochs=1000"]
SAMPLES = [
    "evaluation.samples.encoder=run:{judge}",
    "evaluation.samples.encoder_name=simclr",
    "evaluation.samples.num_samples=10000",
]
RUNS = {
    "vae": ["experiment=vae_fashion_mnist", "trainer.max_epochs=5", *SAMPLES],
    "vq_vae": ["experiment=vq_vae_fashion_mnist", "trainer.max_epochs=5"],
    "dcgan_hinge": ["experiment=dcgan_hinge_fashion_mnist", "trainer.max_epochs=8", *SAMPLES],
    "wgan_gp": [
        *("experiment=wgan_gp_fashion_mnist", "trainer.max_epochs=8", "method.num_critic_steps=2", "optim.lr=4e-4"),
        *SAMPLES,
    ],
    "mae": ["experiment=mae_fashion_mnist", "trainer.max_epochs=10", "views@method.crop=none"],
}
SAMPLE_METRICS = ("frechet", "precision", "recall", "density", "coverage")
PROBES = {"linear/top1": "linear probe", "knn/top1": "kNN"}


def sample_metric(scores, name):
    """The value of a sample metric, whose name goes on with the encoder and the number of samples; None without samples."""
    return next((v for k, v in scores.items() if k.startswith(f"{name}/") and not k.endswith("_real")), None)


def table(results):
    """Markdown: what a perfect generator would reach, raw pixels, the judge, then a line for each run."""
    columns = [*SAMPLE_METRICS, *PROBES.values(), "training"]
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]

    def line(name, scores, seconds=""):
        cells = [sample_metric(scores, metric) for metric in SAMPLE_METRICS]
        shown = ["" if cell is None else f"{cell:.3g}" for cell in cells]
        shown += [f"{100 * scores[probe]:.1f}" if probe in scores else "" for probe in PROBES]
        lines.append(f"| {name} | " + " | ".join([*shown, seconds]) + " |")

    baselines = {}
    for result in results.values():
        baselines |= {name: scores for name, scores in result["scores"].items() if name == "raw pixels"}
    floor = next(
        iter(result for result in results.values() if sample_metric(_last(result), "frechet") is not None), None
    )
    if floor is not None:
        line("train images", {k.removesuffix("_real"): v for k, v in _last(floor).items() if k.endswith("_real")})
    for name, scores in baselines.items():
        line(name, scores)
    for name, result in results.items():
        line(name, _last(result), f"{result['summary']['training_time_sec']:.0f} s")
    return "\n".join(lines)


def _last(result):
    return list(result["scores"].values())[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of Fashion-MNIST")
    parser.add_argument("--judge", type=Path, required=True, help="run directory of SimCLR on the same data")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--methods", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of all runs, after --")
    args = parser.parse_args()

    def run(name):
        settings = [setting.format(judge=args.judge) for setting in RUNS[name]]
        return read(pretrain(args.runs / name, *settings, *SHARED, f"data.root={args.root}", *args.overrides))

    with ThreadPoolExecutor(args.jobs) as pool:
        results = dict(zip(args.methods, pool.map(run, args.methods), strict=True))
    results = {"simclr": read(args.judge), **results}
    print(table(results))
    write_json(results, args.json)


if __name__ == "__main__":
    main()
