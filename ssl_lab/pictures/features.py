"""Pictures of a feature space: a map of samples, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from ssl_lab.captions import Caption
from ssl_lab.data.base import DataModule
from ssl_lab.modalities.image import as_float
from ssl_lab.pictures.captions import CAPTIONS
from ssl_lab.pictures.figures import drawing
from ssl_lab.types import Batch, Drawing, ImageGrid, Picture

NUM_SAMPLES = 500
"""Validation samples whose features are drawn during training."""


def feature_pictures(
    features: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device
) -> dict[str, Picture]:
    """``feature_map`` and, of images, ``neighbours``, from the first few hundred samples of the validation split."""
    x, columns = [], []
    for batch in datamodule.eval_dataloader("val"):
        kept = {name: batch[name] for name in ("image", "label") if name in batch}
        x.append(features({name: column.to(device) for name, column in batch.items()}).float().cpu())
        columns.append({name: column.cpu() for name, column in kept.items()})
        if sum(map(len, x)) >= NUM_SAMPLES:
            break
    joined = {name: torch.cat([part[name] for part in columns])[:NUM_SAMPLES] for name in columns[0]}
    h = torch.cat(x)[:NUM_SAMPLES]
    labels = joined.get("label", torch.full((len(h),), -1))
    pictures: dict[str, Picture] = {}
    if len(h) >= 10 and h.shape[1] >= 2:
        pictures["feature_map"] = feature_map(h, labels, datamodule.spec.class_names)
        if "image" in joined:
            pictures["neighbours"] = neighbours(h, joined["image"])
    return pictures


def neighbours(x: Tensor, images: Tensor, *, num_queries: int = 10, num_neighbours: int = 5) -> ImageGrid:
    """The first images, and below each those whose features (N, D) are most similar by cosine, nearest first."""
    x = F.normalize(x, dim=1)
    similar = x[:num_queries] @ x.T
    similar.fill_diagonal_(-torch.inf)
    rows = similar.topk(min(num_neighbours, len(x) - 1), dim=1).indices.T
    shown = torch.cat([images[:num_queries].unsqueeze(0), images[rows]])
    names = ("query", "nearest", *(f"{place}th" if place > 3 else ("2nd", "3rd")[place - 2] for place in range(2, 10)))
    grid = as_float(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
    return ImageGrid(images=grid, row_names=names[: len(shown)], caption=CAPTIONS["neighbours"])


def feature_map(x: Tensor, labels: Tensor, class_names: Sequence[str]) -> Drawing:
    """Features (N, D) along their two principal components, coloured by label: cheap, and comparable from step to step."""
    from sklearn.decomposition import PCA  # with pandas it takes a second, which a run without such a picture saves

    components = PCA(2, random_state=0)
    xy = components.fit_transform(x.numpy())
    figure = _scatter(xy, labels.numpy(), class_names)
    first, second = (100 * share for share in components.explained_variance_ratio_)
    figure.axes[0].set(
        xlabel=f"first principal component ({first:.0f} % of the variance)",
        ylabel=f"second ({second:.0f} %)",
        title=f"{len(x)} unseen samples",
    )
    return drawing(figure, _caption("feature_map", labels.numpy()))


def projection(x: Tensor, labels: Tensor, class_names: Sequence[str], *, max_points: int = 1500) -> Drawing | None:
    """Features (N, D) in two dimensions (t-SNE after PCA), coloured by label.

    None if there are too few for a map, or all are the same.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    h, y = x[:max_points].cpu().numpy(), labels[:max_points].cpu().numpy()
    if len(h) < 10 or h.shape[1] < 2:
        return None
    h = PCA(min(50, *h.shape), random_state=0).fit_transform(h)
    if h[:, 0].std() < np.finfo(h.dtype).tiny:  # scikit-learn divides by it, and the process crashes
        return None
    xy = TSNE(2, perplexity=min(30.0, len(h) / 4), init="pca", random_state=0).fit_transform(h)
    figure = _scatter(xy, y, class_names)
    for spine in figure.axes[0].spines.values():
        spine.set_visible(False)
    return drawing(figure, _caption("projection", y))


def _caption(name: str, y: np.ndarray[Any, Any]) -> Caption:
    """The caption of a map; it speaks of classes if there is a label (N,), which are those from 0 on."""
    caption = CAPTIONS[name]
    if (y >= 0).any():
        return caption
    return replace(caption, explanation=caption.explanation.replace(", coloured by class", ""))


def _scatter(xy: np.ndarray[Any, Any], y: np.ndarray[Any, Any], class_names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(5.4, 4.7), layout="constrained")
    axes = figure.add_subplot()
    for label in np.unique(y)[:21]:
        name = "no label" if label < 0 else class_names[label] if label < len(class_names) else str(label)
        color = "0.6" if label < 0 else f"C{label}" if label < 10 else None
        axes.scatter(xy[y == label, 0], xy[y == label, 1], s=9, alpha=0.8, label=name, color=color)
    axes.set(xticks=[], yticks=[])
    if (y >= 0).any():
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    return figure


def thumbnails(images: Tensor, *, side: int = 32) -> Tensor:
    """Images (N, C, H, W) as they are, but at most ``side`` pixels high and wide; (N, 3, h, w) in [0, 1]."""
    x = as_float(images)
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
    if max(x.shape[2:]) <= side:
        return x
    scale = side / max(x.shape[2:])
    return F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True).clamp(0, 1)
