"""A VAE's training throughput: ssl_lab beside pythae, same network, batch, images and machine, in turns.

    pip install --target peers --no-deps pythae==0.1.2 imageio
    python benchmarks/vae_pythae.py --peers peers --json benchmarks/results/vae_pythae.json

Networks, batch, optimizer and rate are those of pythae's script for binarised MNIST: 784-400 with ReLU, 40 latents,
400-784, Adam at 1e-4, batches of 100. pythae runs its BaseTrainer with its own datasets, loader and settings; ssl_lab runs
its training path through Lightning, in fp32 and under bf16 autocast. Pixels are random bits: no network is faster for some
than for others.

Whole epochs are timed from the end of the first to the end of the last. Contenders take turns, each run in a process of its
own, and only pythae's sees the peers' folder; medians over runs and their spread are reported, and beside the wall time that
of the processor, which a busy machine disturbs less.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from command import write_json

SHAPE, HIDDEN_DIM, LATENT_DIM, LR = (1, 28, 28), 400, 40, 1e-4
RATES = ("images_per_sec", "images_per_processor_sec")


class EpochClock:
    """Wall and processor time from the end of the first epoch on."""

    def __init__(self):
        self.times = []

    def tick(self):
        self.times.append((time.perf_counter(), time.process_time()))

    def rates(self, num_images):
        first, last = self.times[0], self.times[-1]
        total = num_images * (len(self.times) - 1)
        return {name: total / (end - start) for name, start, end in zip(RATES, first, last, strict=True)}


def ours(images, args, folder, *, precision):
    """``ssl-lab pretrain``'s path."""
    import lightning as L

    from ssl_lab.data.base import DataModule
    from ssl_lab.encoders.mlp import MLPEncoder
    from ssl_lab.engine.memory import keep_freed_memory
    from ssl_lab.generators.mlp import MLPGenerator
    from ssl_lab.methods.vae import VAE
    from ssl_lab.optim import AdamW
    from ssl_lab.types import DataSpec

    class Bits(DataModule):
        spec = DataSpec(modality="image", shape=SHAPE, mean=(0.5,), std=(0.5,))

        def columns(self, split):
            return {"image": 255 * images}

    class Clock(L.Callback):
        def on_train_epoch_end(self, *_):
            clock.tick()

    keep_freed_memory()
    clock = EpochClock()
    decoder = partial(MLPGenerator, hidden_dims=(HIDDEN_DIM,))
    encoder = MLPEncoder(Bits.spec, hidden_dims=(HIDDEN_DIM,))
    optim = AdamW(lr=LR, weight_decay=0.0, warmup_fraction=0.0, final_lr_fraction=1.0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision,
        max_epochs=args.num_epochs + 1,
        default_root_dir=folder,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(VAE(encoder, optim, decoder, latent_dim=LATENT_DIM), datamodule=Bits(batch_size=args.batch_size))
    return clock.rates(len(images))


def pythaes(images, args, folder):
    """The documented loop of pythae."""
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN_DIM), nn.ReLU())
            self.mean, self.log_var = nn.Linear(HIDDEN_DIM, LATENT_DIM), nn.Linear(HIDDEN_DIM, LATENT_DIM)

        def forward(self, x):
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            hidden = nn.Sequential(nn.Linear(LATENT_DIM, HIDDEN_DIM), nn.ReLU())
            self.layers = nn.Sequential(hidden, nn.Linear(HIDDEN_DIM, 784), nn.Sigmoid(), nn.Unflatten(1, SHAPE))

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    class Clock(TrainingCallback):
        def on_epoch_end(self, training_config, **_):
            clock.tick()

    logging.disable(logging.INFO)
    clock = EpochClock()
    settings = BaseTrainerConfig(
        output_dir=folder,
        per_device_train_batch_size=args.batch_size,
        num_epochs=args.num_epochs + 1,
        learning_rate=LR,
        keep_best_on_train=True,
        no_cuda=True,
    )
    model = VAE(VAEConfig(input_dim=SHAPE, latent_dim=LATENT_DIM, reconstruction_loss="bce"), Encoder(), Decoder())
    data = BaseDataset(images, torch.ones(len(images)))
    BaseTrainer(model, train_dataset=data, training_config=settings, callbacks=[Clock()]).train()
    return clock.rates(len(images))


CONTENDERS = {
    "ssl_lab": partial(ours, precision="32-true"),
    "ssl_lab, bf16": partial(ours, precision="bf16-mixed"),
    "pythae": pythaes,
}


def in_own_process(name, args):
    """What a contender reaches; pythae alone finds the peers' folder, after everything that is installed."""
    paths = [os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, __file__, "--run", name, "--batch-size", str(args.batch_size)]
    command += [
        "--num-epochs",
        str(args.num_epochs),
        "--num-images",
        str(args.num_images),
        "--threads",
        str(args.threads),
    ]
    if name == "pythae" and args.peers:
        paths.append(str(args.peers.resolve()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(args):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images = torch.randint(0, 2, (args.num_images, *SHAPE), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        return CONTENDERS[args.run](images, args, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where pythae lies, if it is not installed")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--num-images", type=int, default=10000)
    parser.add_argument("--num-epochs", type=int, default=3, help="timed, after a first one")
    parser.add_argument("--num-runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run(args)))
        return

    rates = {name: {rate: [] for rate in RATES} for name in args.contenders}
    for _ in range(args.num_runs):
        for name in args.contenders:
            for rate, value in in_own_process(name, args).items():
                rates[name][rate].append(value)
    medians = {name: {rate: statistics.median(found[rate]) for rate in RATES} for name, found in rates.items()}
    print(f"VAE 784-400-40, batch {args.batch_size}, {args.threads} threads, median (range) of {args.num_runs} runs")
    for name, found in rates.items():
        for rate, values in found.items():
            unit = rate.replace("_per_", "/").replace("_", " ")
            print(f"  {name:16}{medians[name][rate]:9.0f} {unit:22} ({min(values):.0f}-{max(values):.0f})")
    ratios = {
        name: {rate: found[rate] / medians["pythae"][rate] for rate in RATES}
        for name, found in medians.items()
        if "pythae" in medians and name != "pythae"
    }
    for name, found in ratios.items():
        print(f"  {name} over pythae: {found[RATES[0]]:.2f} by wall time, {found[RATES[1]]:.2f} by processor time")
    figures = {key: value for key, value in vars(args).items() if key not in ("json", "peers", "run")}
    figures |= {"rates": rates, "ratios": ratios, "torch": torch.__version__, "device": platform.machine()}
    write_json(figures, args.json)


if __name__ == "__main__":
    main()
