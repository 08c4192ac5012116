"""Pictures of the attention in a transformer's last block."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from ssl_lab.encoders.attention import patch_attention, token_attention
from ssl_lab.modalities.image import as_float
from ssl_lab.pictures.captions import CAPTIONS
from ssl_lab.pictures.figures import drawing
from ssl_lab.types import Batch, Drawing, Encoder, ImageGrid

NUM_IMAGES, NUM_HEADS, NUM_TOKENS = 10, 6, 20
_MIN_SIDE = 48  # pixels over which attention is spread smoothly


def image_attention(encoder: Encoder, batch: Batch) -> ImageGrid | None:
    """A few images above where each head looks, brightest where it looks most; None without a vision transformer."""
    images = batch["image"][:NUM_IMAGES]
    weights = patch_attention(encoder, {**batch, "image": images})
    if weights is None:
        return None
    zoom = -(-_MIN_SIDE // images.shape[2])
    x = as_float(images).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    original = as_float(images).expand(-1, 3, -1, -1) if images.shape[1] == 1 else as_float(images)
    x, original = (part.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3).float().cpu() for part in (x, original))
    rows = [original, *(_overlay(x, weights[:, head].cpu()) for head in range(min(NUM_HEADS, weights.shape[1])))]
    names = ("image", *(f"head {head + 1}" for head in range(len(rows) - 1)))
    return ImageGrid(images=torch.stack(rows), row_names=names, caption=CAPTIONS["attention"])


def _overlay(x: Tensor, weights: Tensor) -> Tensor:
    """Grey images (B, 3, H, W) in the colours of weights (B, h, w), each from its own smallest to its own largest."""
    weights = F.interpolate(weights[:, None], x.shape[2:], mode="bilinear")[:, 0]
    least, most = weights.amin((1, 2), keepdim=True), weights.amax((1, 2), keepdim=True)
    colours = colormaps["inferno"](((weights - least) / (most - least).clamp(min=1e-12)).numpy())[..., :3]
    return 0.25 * x + 0.75 * torch.from_numpy(colours).permute(0, 3, 1, 2).float()


def text_attention(encoder: Encoder, batch: Batch, pieces: Callable[[list[int]], list[str | None]]) -> Drawing | None:
    """Who looks at whom at the beginning of a text, a map for each of a few heads; None without a text transformer.

    Args:
        encoder: The encoder.
        batch: Texts, of which the one with the most different tokens there is shown.
        pieces: Tokens of ids.
    """
    ids, mask = batch["input_ids"][:, :NUM_TOKENS], batch["attention_mask"]
    row = max(range(len(ids)), key=lambda k: len(set(ids[k].tolist())))
    weights = token_attention(encoder, {name: column[row : row + 1] for name, column in batch.items()})
    if weights is None:
        return None
    tokens = pieces(ids[row, : int(mask[row].sum())].tolist())
    size, num_heads = len(tokens), min(4, weights.shape[1])
    figure = Figure(figsize=(11, 5.8 * -(-num_heads // 2)), layout="constrained")
    for head in range(num_heads):
        axes = figure.add_subplot(-(-num_heads // 2), 2, head + 1)
        shown = axes.imshow(weights[0, head, :size, :size].cpu(), cmap="viridis")
        axes.set_title(f"last block, head {head + 1}", fontsize=11)
        axes.set_xticks(range(size), [str(token) for token in tokens], rotation=90, fontsize=9)
        axes.set_yticks(range(size), [str(token) for token in tokens], fontsize=9)
        axes.set(xlabel="looked at", ylabel="token")
        figure.colorbar(shown, ax=axes, shrink=0.8)
    return drawing(figure, CAPTIONS["attention"])
