"""Negative log likelihood of a VAE and of an IWAE with 50 samples: same networks, pixels, batches and number of steps.

    python benchmarks/nll.py --data digits --num-epochs 300
    python benchmarks/nll.py --data fashion_mnist --root DIR --num-epochs 30 --json benchmarks/results/nll_fashion_mnist.json

Pixels are binarised stochastically, anew in each training step and by a fixed draw on the test split. Networks are fully
connected, 200-200 with tanh on both sides of 50 latents, as in Burda et al. (2016). The likelihood is estimated by importance
sampling on the test split, for both with the same number of samples.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from command import of_encoder, pretrain, read, write_json

NETWORKS = ("encoder.hidden_dims=[200,200]", "encoder.activation=tanh", "method.latent_dim=50")
DECODER = ("method.decoder.hidden_dims=[200,200]", "method.decoder.activation=tanh")
METHODS = {"vae": ("method.kl_warmup_fraction=0.0",), "iwae": ("method.num_samples=50",)}


def train(method, seed, folder, args):
    """Metrics of the test split, and seconds."""
    run = pretrain(
        folder / f"{method}_{seed}",
        *(
            f"method={method}",
            f"data={args.data}",
            "encoder=mlp",
            "generator@method.decoder=mlp",
            "evaluation=nll",
            "adapt_to_data=false",
        ),
        *((f"data.root={args.root}",) if args.root else ()),
        *(*NETWORKS, *DECODER, *METHODS[method], "method.binarize=stochastic", f"data.batch_size={args.batch_size}"),
        *("optim.weight_decay=0.0", f"optim.lr={args.lr}", f"trainer={args.trainer}", f"seed={seed}"),
        f"trainer.precision={args.precision}",
        *(f"trainer.max_epochs={args.num_epochs}", f"evaluate_every_n_epochs={args.num_epochs + 1}"),
        *(f"evaluation.nll.num_samples={args.num_samples}", f"evaluation.nll.num_images={args.num_images or 'null'}"),
    )
    result = read(run)
    metrics = of_encoder(result)
    names = {
        "nll": f"nll/nats_k{args.num_samples}",
        "effective_samples": f"nll/effective_samples_k{args.num_samples}",
        "elbo": "elbo/elbo",
        "active_units": "elbo/active_units",
    }
    found = {key: metrics[name] for key, name in names.items()}
    return {**found, "wall_time_sec": result["summary"]["wall_time_sec"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", help="folder of a local copy of the data")
    parser.add_argument("--num-epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--num-samples", type=int, default=200, help="importance samples per image")
    parser.add_argument("--num-images", type=int, help="of the test split; all if not given")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--trainer", default="cpu")
    parser.add_argument("--precision", default="32-true", help="of the training; the likelihood is always in fp32")
    parser.add_argument("--folder", type=Path, help="of the runs, which are kept and not run again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        results = {method: [train(method, seed, folder, args) for seed in args.seeds] for method in METHODS}
    means = {
        method: {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
        for method, runs in results.items()
    }
    print(f"{args.data}, binarised, {args.num_epochs} epochs, {args.num_samples} importance samples, nats per image")
    for method, found in means.items():
        print(f"  {method:5}" + "  ".join(f"{name} {value:.2f}" for name, value in found.items()))
    gain = means["vae"]["nll"] - means["iwae"]["nll"]
    print(f"  IWAE is better by {gain:.2f} nats")
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "folder", "root")}
    write_json({**settings, "results": results, "iwae_gain_nats": gain}, args.json)


if __name__ == "__main__":
    main()
