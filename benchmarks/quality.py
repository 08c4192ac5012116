"""Every method that compares views of images, pretrained for minutes on the CPU and judged beside a random encoder.

    python benchmarks/quality.py --root DIR_OF_FASHION_MNIST --runs DIR --json benchmarks/results/quality_fashion_mnist.json

Each method is one ``ssl-lab pretrain`` command, printed before it starts: one small ConvNet, the same number of images and
the same two views, AdamW unless noted, and of the method's own settings those below, chosen on the validation split.
``ssl-lab leaderboard`` shows the last checkpoint on the test split. A method whose run is finished is read, not repeated.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from command import pretrain, read, ssl_lab, write_json

SHARED = [
    "data=fashion_mnist",
    "encoder=convnet",
    "encoder.widths=[16,32,64,128]",
    "optim=adamw",
    "optim.lr=2e-3",
    "evaluation=features",
    "evaluate_every_n_epochs=1000",
    "data.batch_size=256",
    "trainer.accelerator=cpu",
    "trainer.precision=bf16-mixed",
    "adapt_to_data=false",
]
TWO_VIEWS = ["views@method.views=fashion", "method.hidden_dim=512"]
MULTI_CROP = [  # the same two views and no local ones
    "views@method.views=multi_crop",
    *(
        f"method.views.global_views.first.{setting}"
        for setting in (
            "crop_scale=[0.3,1.0]",
            "brightness=0.4",
            "contrast=0.4",
            "grayscale_prob=0",
            "blur_prob=0.2",
            "blur_sigma=[0.1,1.0]",
        )
    ),
    "method.views.num_local=0",
    "method.hidden_dim=512",
]
METHODS = {
    "simclr": [*TWO_VIEWS, "method.temperature=0.5"],
    "supcon": [*TWO_VIEWS, "method.temperature=0.2"],
    "moco_v2": [*TWO_VIEWS, "method.queue_size=16384", "method.momentum=0.99", "method.final_momentum=0.99"],
    "moco_v3": [*TWO_VIEWS],
    "nnclr": [*TWO_VIEWS, "method.queue_size=16384", "method.temperature=0.2", "method.predictor_hidden_dim=512"],
    "byol": [*TWO_VIEWS, "method.momentum=0.9"],
    "simsiam": [
        *TWO_VIEWS,
        "method.projection_dim=512",
        "method.predictor_hidden_dim=128",
        *("optim=sgd", "optim.lr=0.1", "optim.weight_decay=1e-5"),  # SGD, as in the paper
    ],
    "barlow_twins": [*TWO_VIEWS, "method.projection_dim=128"],
    "vicreg": [*TWO_VIEWS, "method.projection_dim=256"],
    "swav": [*MULTI_CROP, "method.num_prototypes=256", "method.epsilon=0.03"],
    "dino": [
        *MULTI_CROP,
        "method.num_prototypes=1024",
        "method.momentum=0.95",
        "method.teacher_temperature=0.04",
        "method.hidden_norm=true",
    ],
}
METRICS = ("linear/top1", "knn/top1", "few_label/top1_n10", "rankme/rank")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="methods at a time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of all runs, after --")
    args = parser.parse_args()

    shared = [*SHARED, f"data.root={args.root}", f"trainer.max_epochs={args.epochs}", f"seed={args.seed}"]

    def run(name):
        return read(pretrain(args.runs / name, f"method={name}", *shared, *METHODS[name], *args.overrides))

    with ThreadPoolExecutor(args.jobs) as pool:
        results = dict(zip(args.methods, pool.map(run, args.methods), strict=True))
    write_json(results, args.json)
    print(
        ssl_lab("leaderboard", *(args.runs / name for name in args.methods), *(f"--metric={name}" for name in METRICS))
    )


if __name__ == "__main__":
    main()
