"""A VAE's training throughput: ssl_lab beside pythae, same network, batch, images and machine, in turns.

    pip install --target peers --no-deps pythae==0.1.2 imageio
    python benchmarks/vae_pythae.py --peers peers --json benchmarks/results/vae_pythae_mlp.json
    python benchmarks/vae_pythae.py --peers peers --json benchmarks/results/vae_pythae_conv.json --network conv \
        --num-images 1000 --num-epochs 2

Networks, latent width, batch, optimizer and rate are those of pythae's scripts: for binarised MNIST 784-400 with ReLU, 40
latents, 400-784, Adam at 1e-4 (``mlp``); for MNIST four convolutions up to 1,024 channels, 16 latents, three transposed
ones, Adam at 1e-3 (``conv``); batches of 100. pythae runs its BaseTrainer with its own datasets, loader and settings;
ssl_lab runs its training path through Lightning, convolutions in channels_last, in fp32 and under bf16 autocast; a bare
PyTorch loop shows what the network itself takes. Pixels are
random bits: no network is faster for some than for others.

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
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from command import write_json
from torch import nn

SHAPE = (1, 28, 28)
RATES = ("images_per_sec", "images_per_processor_sec")


def mlp():
    """Encoder, its width, latent width, decoder and learning rate of the script for binarised MNIST."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU())
    decoder = nn.Sequential(nn.Linear(40, 400), nn.ReLU(), nn.Linear(400, 784), nn.Unflatten(1, SHAPE))
    return encoder, 400, 40, decoder, 1e-4


def conv():
    """The same of the script for MNIST."""

    def normalised(layer):
        return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())

    widths = (1, 128, 256, 512, 1024)
    down = [normalised(nn.Conv2d(*pair, 4, 2, padding=1)) for pair in pairwise(widths)]
    up = [
        normalised(nn.ConvTranspose2d(1024, 512, 3, 2, padding=1)),
        normalised(nn.ConvTranspose2d(512, 256, 3, 2, padding=1, output_padding=1)),
        nn.ConvTranspose2d(256, 1, 3, 2, padding=1, output_padding=1),
    ]
    encoder = nn.Sequential(*down, nn.Flatten())
    decoder = nn.Sequential(nn.Linear(16, 1024 * 4 * 4), nn.Unflatten(1, (1024, 4, 4)), *up)
    return encoder, 1024, 16, decoder, 1e-3


NETWORKS = {"mlp": mlp, "conv": conv}


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
    from ssl_lab.encoders.image import ImageEncoder, require_channels_last
    from ssl_lab.engine.memory import keep_freed_memory
    from ssl_lab.generators.base import Generator
    from ssl_lab.methods.vae import VAE
    from ssl_lab.modalities.image import ImageSpec
    from ssl_lab.optim import AdamW

    layers, width, latent_dim, decoder_layers, lr = NETWORKS[args.network]()

    class Encoder(ImageEncoder):
        def __init__(self, spec):
            super().__init__(spec, embed_dim=width)
            self.layers = require_channels_last(layers)

        def encode(self, x):
            return self.layers(x.contiguous(memory_format=torch.channels_last))

    class Decoder(Generator):
        def __init__(self, spec, *, latent_dim):
            super().__init__(spec, latent_dim=latent_dim)
            self.layers = require_channels_last(decoder_layers)

        def forward(self, z):
            return self.layers(z)

    class Bits(DataModule):
        spec = ImageSpec(shape=SHAPE, mean=(0.5,), std=(0.5,))

        def columns(self, split):
            return {"image": 255 * images}

    class Clock(L.Callback):
        def on_train_epoch_end(self, *_):
            clock.tick()

    keep_freed_memory()
    clock = EpochClock()
    optim = AdamW(lr=lr, weight_decay=0.0, warmup_fraction=0.0, final_lr_fraction=1.0)
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
    method = VAE(Encoder(Bits.spec), optim, Decoder, latent_dim=latent_dim)
    trainer.fit(method, datamodule=Bits(batch_size=args.batch_size))
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

    layers, width, latent_dim, decoder_layers, lr = NETWORKS[args.network]()

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layers = layers
            self.mean, self.log_var = nn.Linear(width, latent_dim), nn.Linear(width, latent_dim)

        def forward(self, x):
            h = self.layers(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*decoder_layers, nn.Sigmoid())

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
        learning_rate=lr,
        keep_best_on_train=True,
        no_cuda=True,
    )
    model = VAE(VAEConfig(input_dim=SHAPE, latent_dim=latent_dim, reconstruction_loss="bce"), Encoder(), Decoder())
    data = BaseDataset(images, torch.ones(len(images)))
    BaseTrainer(model, train_dataset=data, training_config=settings, callbacks=[Clock()]).train()
    return clock.rates(len(images))


def bare_loop(images, args, folder, *, precision):
    """Nothing but the network, its loss and its optimizer: what no library can exceed."""
    layers, width, latent_dim, decoder_layers, lr = NETWORKS[args.network]()
    network = nn.ModuleList([layers, nn.Linear(width, 2 * latent_dim), decoder_layers])
    network.to(memory_format=torch.channels_last)
    encoder, to_posterior, decoder = network
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    clock = EpochClock()
    for _ in range(args.num_epochs + 1):
        for rows in torch.randperm(len(images)).split(args.batch_size):
            x = images[rows].float().contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", enabled=precision == "bf16-mixed"):
                mean, log_var = to_posterior(encoder(x)).float().chunk(2, dim=1)
                logits = decoder(mean + (log_var / 2).exp() * torch.randn_like(mean)).float()
            reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = (log_var.exp() + mean.square() - 1 - log_var).sum() / 2
            optimizer.zero_grad()
            ((reconstruction + kl) / len(x)).backward()
            optimizer.step()
        clock.tick()
    return clock.rates(len(images))


CONTENDERS = {
    "ssl_lab": partial(ours, precision="32-true"),
    "ssl_lab, bf16": partial(ours, precision="bf16-mixed"),
    "bare loop": partial(bare_loop, precision="32-true"),
    "bare loop, bf16": partial(bare_loop, precision="bf16-mixed"),
    "pythae": pythaes,
}


def in_own_process(name, args):
    """What a contender reaches; pythae alone finds the peers' folder, after everything that is installed."""
    paths = [os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, __file__, "--run", name]
    for option in ("network", "batch_size", "num_epochs", "num_images", "threads"):
        command += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
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
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
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
    print(
        f"VAE, {args.network}, batch {args.batch_size}, {args.threads} threads, median (range) of {args.num_runs} runs"
    )
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
