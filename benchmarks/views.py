"""Two strong views of a batch on the CPU: ours on the whole batch against torchvision image by image.

    python benchmarks/views.py --batch-size 256 --side 32 --json views.json

One process and one thread for all, in which freed memory is kept as the command does; the pipelines take turns, after one
warm-up, and medians of the thread's CPU time are compared, which other work on the machine hardly disturbs. torchvision
runs the same crop, flip, colour jitter, grey and blur on tensors and on PIL images (where it always antialiases), as its data
loaders would.
"""

import argparse
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch
import torchvision
from command import write_json
from torchvision.transforms import v2

from ssl_lab.engine.memory import keep_freed_memory
from ssl_lab.pretext.views import TwoViews, View


def torchvision_view(side):
    kernel = 2 * max(1, round(0.05 * side)) + 1
    jitter = v2.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    return [
        v2.RandomResizedCrop(side, scale=(0.08, 1.0), antialias=False),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([jitter], p=0.8),
        v2.RandomGrayscale(p=0.2),
        v2.RandomApply([v2.GaussianBlur(kernel, sigma=(0.1, 2.0))], p=0.5),
    ]


def pipelines(images):
    """Functions without arguments, each from uint8 images in memory to two float views of each."""
    side = images.shape[-1]
    to_float = v2.ToDtype(torch.float32, scale=True)
    on_tensors = v2.Compose([to_float, *torchvision_view(side)])
    on_pil = v2.Compose([v2.ToPILImage(), *torchvision_view(side), v2.ToImage(), to_float])
    ours, compiled = TwoViews(View()), TwoViews(View())
    compiled.compile(dynamic=False)
    return {
        "ssl_lab, batch": lambda: ours({"image": images}),
        "ssl_lab, batch, compiled": lambda: compiled({"image": images}),
        "torchvision v2, tensors": lambda: torch.stack(
            [torch.stack([on_tensors(x) for x in images]) for _ in range(2)]
        ),
        "torchvision v2, PIL": lambda: torch.stack([torch.stack([on_pil(x) for x in images]) for _ in range(2)]),
    }


def measure(functions, *, repeats):
    """CPU seconds of each function, in turns."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if repeat > 0:
                seconds[name].append(time.process_time() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args()

    warnings.filterwarnings("ignore", message="Anti-alias option is always applied for PIL")
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (args.batch_size, 3, args.side, args.side), dtype=torch.uint8)
    seconds = measure(pipelines(images), repeats=args.repeats)
    rates = {name: args.batch_size / statistics.median(runs) for name, runs in seconds.items()}
    ours = rates["ssl_lab, batch"]

    print(f"two views of {args.batch_size} images of 3 x {args.side} x {args.side}, median of {args.repeats} runs")
    print(f"{'':26}{'images/s':>10}{'ours / theirs':>15}{'slowest / fastest run':>24}")
    for name, rate in rates.items():
        spread = max(seconds[name]) / min(seconds[name])
        print(f"{name:26}{rate:10.0f}{ours / rate:15.1f}{spread:24.2f}")
    if args.json:
        figures = {
            "batch_size": args.batch_size,
            "side": args.side,
            "num_threads": 1,
            "images_per_sec": rates,
            "cpu_seconds": seconds,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "machine": platform.machine(),
        }
        write_json(figures, args.json)


if __name__ == "__main__":
    main()
