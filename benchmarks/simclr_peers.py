"""SimCLR's training throughput: ssl_lab beside its peers, same network, batch, images and machine, in turns.

    pip install 'lightly>=1.6,<1.7' stable-pretraining==0.1.8
    python benchmarks/simclr_peers.py --encoder convnet --json benchmarks/results/simclr_peers_convnet.json

lightly runs the loop of its documentation: PIL transforms in eight data-loader workers, one forward pass a view, fp32;
and the same under bf16 autocast, so that precision is equal, and with ``--num-workers`` of them, two unless told. Time is
taken once the batches that workers had ready at the start are used up. stable-pretraining runs its Module under
Lightning with the transforms of its CIFAR-10 recipe (no blur, so less work) and LARS. ssl_lab runs its training path
through Lightning, as ``ssl-lab bench`` does, and again with views and encoder compiled. All in both precisions. Images
are random bytes: no transform or network is faster for some images than for others. Contenders take turns, each run in
a process of its own; medians over runs and their spread are reported. stable-pretraining adds callbacks of its own to
every Lightning trainer of an environment that it is installed in, ssl_lab's too.
"""

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import lightning as L
import numpy as np
import torch
from command import write_json
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image

from ssl_lab.data.base import DataModule
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.resnet import ResNet
from ssl_lab.engine.bench import bench
from ssl_lab.engine.memory import keep_freed_memory
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD
from ssl_lab.pretext.views import TwoViews, View
from ssl_lab.types import Classes

SPEC = ImageSpec(shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, targets={"label": Classes(number=10)})
ENCODERS = {
    "convnet": lambda: ConvNet(SPEC),
    "convnet_small": lambda: ConvNet(SPEC, widths=(16, 32, 64)),
    "resnet18": lambda: ResNet(SPEC, depth=18),
}


class RandomImages(DataModule):
    """The bytes as a data module."""

    def __init__(self, images, batch_size):
        super().__init__(batch_size=batch_size)
        self.images = images

    @property
    def spec(self):
        return SPEC

    def columns(self, split):
        return {"image": torch.from_numpy(self.images.transpose(0, 3, 1, 2).copy())}


class PILImages(torch.utils.data.Dataset):
    """The bytes as torchvision's CIFAR-10 gives them."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), 0


def ours(encoder, images, args, *, precision, compiled=False):
    """``ssl-lab pretrain``'s path: images a second, and a step's time over that of the encoder alone."""
    keep_freed_memory()
    method = SimCLR(ENCODERS[encoder](), SGD(lr=0.06), TwoViews(View()), hidden_dim=512, projection_dim=128)
    if compiled:
        method.encoder.compile(dynamic=False)
        method.views.compile(dynamic=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = quiet_trainer(args, precision, folder, num_steps=args.warmup_steps + 2 * args.num_steps)
        data = RandomImages(images, args.batch_size)
        speed = bench(method, data, trainer, warmup_steps=args.warmup_steps, num_steps=args.num_steps)
    return speed.samples_per_sec, speed.ratio


def ours_compiled(encoder, images, args, *, precision):
    """The same with ``compile=true``; its ratio is to the compiled encoder."""
    return ours(encoder, images, args, precision=precision, compiled=True)


def with_workers(dataset, args, num_workers=None):
    """The peers' data loader."""
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers or args.num_workers,
        pin_memory=args.accelerator == "gpu",
        persistent_workers=True,
    )


def lightlys(encoder, images, args, *, precision, num_workers=None):
    """Images a second of lightly's documented loop."""
    device = torch.device("cuda" if args.accelerator == "gpu" else "cpu")
    network = ENCODERS[encoder]()
    network.to(memory_format=torch.contiguous_format)
    head = SimCLRProjectionHead(network.embed_dim, 512, 128)
    model = torch.nn.Sequential(Plain(network), head).to(device)
    loader = with_workers(PILImages(images, SimCLRTransform(input_size=32)), args, num_workers)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    step = 0
    while True:
        for (x0, x1), _ in loader:
            if step == args.warmup_steps:
                synchronise(device)
                start = time.perf_counter()
            if step == args.warmup_steps + args.num_steps:
                synchronise(device)
                return args.num_steps * args.batch_size / (time.perf_counter() - start), None
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                z0, z1 = model(x0.to(device, non_blocking=True)), model(x1.to(device, non_blocking=True))
                loss = criterion(z0, z1)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1


def lightlys_documented(encoder, images, args, *, precision):
    """The same with the workers of its documentation."""
    return lightlys(encoder, images, args, precision=precision, num_workers=DOCUMENTED_WORKERS)


def stable_pretrainings(encoder, images, args, *, precision):
    """Images a second of stable-pretraining's documented recipe."""
    import stable_pretraining as spt
    from stable_pretraining.data import transforms as t
    from stable_pretraining.forward import simclr

    view = t.Compose(
        t.RGB(),
        t.RandomResizedCrop((32, 32)),
        t.RandomHorizontalFlip(p=0.5),
        t.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
        t.RandomGrayscale(p=0.2),
        t.ToImage(mean=SPEC.mean, std=SPEC.std),
    )
    dataset = spt.data.FromTorchDataset(
        PILImages(images, lambda image: image), names=["image", "label"], transform=t.MultiViewTransform([view, view])
    )
    network = ENCODERS[encoder]()
    network.to(memory_format=torch.contiguous_format)
    module = spt.Module(
        backbone=Plain(network),
        projector=SimCLRProjectionHead(network.embed_dim, 512, 128).layers,
        forward=simclr,
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={"optimizer": {"type": "LARS", "lr": 5, "weight_decay": 1e-6}, "interval": "epoch"},
    )
    timer = Timer(args.warmup_steps, args.num_steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = quiet_trainer(
            args, precision, folder, num_steps=args.warmup_steps + args.num_steps, callbacks=[timer]
        )
        trainer.fit(module, datamodule=spt.data.DataModule(train=with_workers(dataset, args)))
    return args.num_steps * args.batch_size / timer.seconds, None


class Timer(L.Callback):
    """Seconds from the end of the warm-up to the end of training."""

    def __init__(self, warmup_steps, num_steps):
        self.warmup_steps, self.num_steps, self.step = warmup_steps, num_steps, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.step += 1
        if self.step == self.warmup_steps:
            synchronise(pl_module.device)
            self.start = time.perf_counter()
        elif self.step == self.warmup_steps + self.num_steps:
            synchronise(pl_module.device)
            self.seconds = time.perf_counter() - self.start


def quiet_trainer(args, precision, folder, *, num_steps, callbacks=()):
    return L.Trainer(
        accelerator=args.accelerator,
        devices=1,
        precision=precision,
        max_epochs=-1,
        max_steps=num_steps,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class Plain(torch.nn.Module):
    """The same layers on images that lightly's transform has normalised, in torch's default memory layout."""

    def __init__(self, encoder):
        super().__init__()
        self.layers = encoder.network if isinstance(encoder, ResNet) else encoder.stages

    def forward(self, x):
        x = self.layers(x)
        return x.mean((2, 3)) if x.ndim == 4 else x


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


CONTENDERS = {
    "ssl_lab": ours,
    "ssl_lab, compiled": ours_compiled,
    "lightly": lightlys_documented,
    "lightly, fewer workers": lightlys,
    "stable-pretraining": stable_pretrainings,
}
DOCUMENTED_WORKERS = 8
PRECISIONS = ("32-true", "bf16-mixed")
START_METHOD = "fork"  # the default of data loaders on Linux


def in_own_process(name, args, precision):
    """What a contender reaches; settings of its process and its workers do not stay."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, name, args, precision).result()


def _run(name, args, precision):
    multiprocessing.set_start_method(START_METHOD, force=True)  # for data loaders; a spawned process would spawn them
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    num_images = (args.warmup_steps + args.num_steps + 2 * DOCUMENTED_WORKERS) * args.batch_size  # no epoch ends
    images = np.random.default_rng(0).integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    return CONTENDERS[name](args.encoder, images, args, precision=precision)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="convnet")
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-steps", type=int, default=24)
    parser.add_argument(
        "--warmup-steps", type=int, default=2 * DOCUMENTED_WORKERS + 4, help="more than workers have batches ready"
    )
    parser.add_argument("--num-runs", type=int, default=3)
    parser.add_argument("--num-workers", type=int, default=2, help="of the peers' data loaders")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    rates = {f"{name}, {precision}": [] for name in args.contenders for precision in PRECISIONS}
    ratios_to_bare = {name: [] for name in rates if name.startswith("ssl_lab")}
    for _ in range(args.num_runs):
        for precision in PRECISIONS:
            for name in args.contenders:
                rate, ratio = in_own_process(name, args, precision)
                rates[f"{name}, {precision}"].append(rate)
                if ratio is not None:
                    ratios_to_bare[f"{name}, {precision}"].append(ratio)
    print(f"SimCLR, {args.encoder}, 3 x 32 x 32, batch {args.batch_size}, median (range) of {args.num_runs} runs")
    for name, values in rates.items():
        print(f"  {name:32}{statistics.median(values):9.0f} images/s ({min(values):.0f}-{max(values):.0f})")
    for name, ratios in ratios_to_bare.items():
        print(f"  {name}: step over the bare encoder {statistics.median(ratios):.2f}")
    if args.json:
        peers = {name.split(",")[0] for name in args.contenders} - {"ssl_lab"}
        figures = {
            **{key: value for key, value in vars(args).items() if key != "json"},
            "images_per_sec": rates,
            "ratio_to_bare_encoder": ratios_to_bare,
            **{name: version(name) for name in ("torch", "torchvision", "lightning", *sorted(peers))},
            "device": torch.cuda.get_device_name() if args.accelerator == "gpu" else platform.machine(),
            "threads": torch.get_num_threads(),
        }
        write_json(figures, args.json)


if __name__ == "__main__":
    main()
