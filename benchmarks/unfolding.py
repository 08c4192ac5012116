"""Draw ``docs/images/unfolding.gif``: features of unseen digits while SimCLR trains as in ``experiment=simclr_digits``.

``unfolding_dark.gif`` shows the same on a dark background.

python benchmarks/unfolding.py  # two minutes on two CPU cores
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier

from ssl_lab.data.image.digits import Digits
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.optim import AdamW
from ssl_lab.pretext.views import TwoViews, View

OUT = Path(__file__).parents[1] / "docs/images"
GROUNDS = {"unfolding.gif": ("white", "black"), "unfolding_dark.gif": ("#14171a", "#e4e7ea")}
"""Background and ink of each file."""
STEPS = (0, 4, 8, 12, 16, 20, 28, 36, 44, 56, 68, 80, 100, 120, 160, 200, 260, 320, 400, 500, 600, 700, 800)


class Snapshots(L.Callback):
    """Keeps the features of given images at the steps of ``STEPS``."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.features: dict[int, NDArray[np.float32]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Features of the random encoder."""
        self._take(pl_module, 0)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Features after a step."""
        if trainer.global_step in STEPS:
            self._take(pl_module, trainer.global_step)

    def _take(self, module: L.LightningModule, step: int) -> None:
        with torch.no_grad():
            module.eval()
            self.features[step] = module.encoder.embed({"image": self.images}).numpy()
            module.train()


def layouts(features: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Positions (N, 2) for each step by t-SNE, each started from the one before so that points move little."""
    places: list[NDArray[np.float32]] = []
    for x in features:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        start = places[-1] / places[-1].std() if places else "pca"
        calm = {} if not places else {"early_exaggeration": 1.0, "learning_rate": 50.0}
        places.append(
            TSNE(metric="cosine", init=start, perplexity=30, random_state=0, max_iter=500, **calm).fit_transform(x)
        )
    return [place / np.abs(place).max() for place in places]


def frame(place: NDArray[np.float32], labels: NDArray[np.int64], title: str, *, ground: str, ink: str) -> Image.Image:
    """One picture of the animation."""
    figure = Figure(figsize=(5.2, 3.2), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 0.9))
    axes.set_axis_off()
    axes.scatter(place[:, 0] * 1.4, place[:, 1], c=labels, cmap="tab10", s=9, linewidths=0)
    for label in np.unique(labels):
        x, y = np.median(place[labels == label], axis=0)
        axes.text(
            x * 1.4, y, str(label), ha="center", va="center", fontsize=12, fontweight="bold", alpha=0.75, color=ink
        )
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.08, 1.08))
    figure.text(0.5, 0.94, title, ha="center", fontsize=11, family="DejaVu Sans Mono", color=ink)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=ground)
    return Image.open(file).convert("RGB")


def main() -> None:
    """Train, take features, lay them out, and write the animation."""
    L.seed_everything(0, verbose=False)
    data = Digits(batch_size=256)
    data.prepare_data()
    data.setup("fit")
    train, test = data.columns("train"), data.columns("test")
    view = View(
        crop_scale=(0.5, 1.0), flip_prob=0.0, rotate_degrees=15.0, shear_degrees=10.0, brightness=0.4, contrast=0.4
    )
    method = SimCLR(
        ConvNet(data.spec, widths=(32, 64, 128)), AdamW(lr=2e-3), TwoViews(view), temperature=0.5, hidden_dim=256
    )
    images = torch.cat([torch.as_tensor(part["image"]) for part in (train, test)])
    snapshots = Snapshots(images)
    L.Trainer(
        max_epochs=200, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[snapshots],
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(method, data)  # fmt: skip
    num_train = len(train["image"])
    known, labels = np.asarray(train["label"]), np.asarray(test["label"])
    places = layouts([x[num_train:] for x in snapshots.features.values()])
    titles = []
    for step, x in snapshots.features.items():
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        few = np.concatenate([np.flatnonzero(known == label)[:10] for label in range(10)])
        score = KNeighborsClassifier(1).fit(x[few], known[few]).score(x[num_train:], labels)
        titles.append(f"step {step:>3} of 800   {100 * score:4.1f} % right from 10 labels per class")
        print(titles[-1], flush=True)
    for name, (ground, ink) in GROUNDS.items():
        frames = [
            frame(place, labels, title, ground=ground, ink=ink) for place, title in zip(places, titles, strict=True)
        ]
        write(frames, OUT / name)


def write(frames: Sequence[Image.Image], out: Path) -> None:
    """Write the animation, which rests on its first and its last picture."""
    palette = frames[-1].quantize(64)
    frames = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in frames]
    times = [1200] + [350] * (len(frames) - 2) + [3000]
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)


if __name__ == "__main__":
    main()
