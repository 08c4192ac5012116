r"""Generative pretraining of Fashion-MNIST on the CPU: samples judged on a named encoder, features by the usual probes.

    python benchmarks/generative.py --root DIR_OF_FASHION_MNIST --judge SIMCLR_RUN --runs DIR \
        --json benchmarks/results/generative_fashion_mnist.json

Each line is one ``ssl-lab pretrain`` command, printed before it starts, of an experiment in ``conf/experiment`` with the
settings below. The judge is a finished run of SimCLR on the same data: its encoder gives the features of the sample metrics,
and its own probes stand beside. ``ssl-lab leaderboard`` shows the last checkpoint on the test split. A run that is
finished is read, not repeated.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from command import pretrain, read, ssl_lab, write_json

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
METRICS = (
    *("linear/top1", "knn/top1", "frechet/simclr_n10000", "samples/min_class_share"),
    *(f"{name}/simclr_n10000" for name in ("precision", "recall", "density", "coverage")),
)


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
    write_json({"simclr": read(args.judge), **results}, args.json)
    runs = [args.judge, *(args.runs / name for name in args.methods)]
    print(ssl_lab("leaderboard", *runs, *(f"--metric={name}" for name in METRICS)))


if __name__ == "__main__":
    main()
