"""Pictures of a generative method, drawn from its capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lab.data.base import DataModule
from ssl_lab.devices import float64_device
from ssl_lab.generators.base import Generator
from ssl_lab.methods.base import Method
from ssl_lab.modalities.image import as_float
from ssl_lab.pictures.captions import CAPTIONS
from ssl_lab.types import Batch, ImageGrid

MAX_TRAIN = 50_000
"""More train images than this, the first ones, are not searched for neighbours of samples."""

_ROWS_AT_ONCE = 2048


def generative_pictures(method: Method, batch: Batch, datamodule: DataModule) -> dict[str, ImageGrid]:
    """Draw the pictures of a method, by name; nothing for methods that generate no images.

    ``interpolations`` where it decodes: between images if it encodes, else between latents of the prior. ``traversals``
    where it encodes and decodes. ``nearest_neighbours`` where it samples: samples above the most similar train images,
    which unmask a generator that has learned images by heart.

    Args:
        method: The method.
        batch: Validation samples on its device, at least 8 for all pictures.
        datamodule: Where the train images are.
    """
    offered = method.capabilities()
    pictures: dict[str, ImageGrid] = {}
    fixed = torch.Generator(method.device).manual_seed(0)
    if "decode" in offered and "encode" in offered:
        codes = offered["encode"](batch)
        num_pairs = min(4, len(codes) // 2)
        pictures["interpolations"] = interpolation(
            offered["decode"], codes[:num_pairs], codes[num_pairs : 2 * num_pairs], mix=lerp
        )
        pictures["traversals"] = traversal(offered["decode"], codes)
    elif "decode" in offered:
        ends = torch.randn(2, 4, latent_dim(method), device=method.device, generator=fixed)
        pictures["interpolations"] = interpolation(offered["decode"], ends[0], ends[1], mix=slerp)
    if "sample" in offered:
        samples = offered["sample"](12, fixed)
        neighbours = nearest_images(samples, datamodule, num_neighbours=3)
        names = ("sample", "nearest train image", "second", "third")
        rows = torch.cat([samples.unsqueeze(0), neighbours])
        caption = CAPTIONS["nearest_neighbours"]
        pictures["nearest_neighbours"] = ImageGrid(images=rows, row_names=names[: len(rows)], caption=caption)
    return pictures


def interpolation(
    decode: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    *,
    mix: Callable[[Tensor, Tensor, float], Tensor],
    num_steps: int = 10,
) -> ImageGrid:
    """Images on the way from latents a to latents b, each (R, K): R rows of ``num_steps``, ends included."""
    shares = torch.linspace(0, 1, num_steps).tolist()
    images = torch.stack([decode(mix(a, b, share)) for share in shares], dim=1)
    return ImageGrid(images=images, caption=CAPTIONS["interpolations"])


def lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point at ``share`` of the straight way from a to b."""
    return torch.lerp(a, b, share)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    r"""The point at ``share`` of the way from a to b (R, K) along an arc, straight where they point the same way.

    .. math:: \frac{\sin((1 - t)\,\omega)}{\sin \omega} a + \frac{\sin(t\,\omega)}{\sin \omega} b

    with the angle :math:`\omega` between them. Standard normal latents have nearly one length, which a straight way leaves
    and an arc keeps.

    References:
        White, Sampling Generative Networks (2016). arXiv:1609.04468
    """
    cosine = nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1).unsqueeze(1)
    angle = cosine.acos()
    sine = angle.sin()
    arc = ((1 - share) * angle).sin() / sine * a + (share * angle).sin() / sine * b
    return torch.where(sine > 1e-4, arc, lerp(a, b, share))


def traversal(
    decode: Callable[[Tensor], Tensor], codes: Tensor, *, num_dims: int = 8, num_values: int = 9
) -> ImageGrid:
    """One latent dimension a row, through the range of its posterior means, the others as in the first image.

    Args:
        decode: Images of latents (N, K).
        codes: Posterior means (B, K), B >= 2; dimensions are ordered by their spread over them, and range from their 2nd
            to their 98th percentile.
        num_dims: Number of rows, cut to K.
        num_values: Number of columns.
    """
    dims = codes.std(0).argsort(descending=True)[:num_dims]
    spread = codes.float().to(float64_device(codes.device))  # quantile finds its ranks in float64
    low, high = (torch.quantile(spread, share, dim=0).to(codes.device) for share in (0.02, 0.98))
    z = codes[0].repeat(len(dims), num_values, 1)
    shares = torch.linspace(0, 1, num_values, device=codes.device)
    for row, dim in enumerate(dims):
        z[row, :, dim] = (low[dim] + shares * (high[dim] - low[dim])).to(z.dtype)
    images, names = decode(z.flatten(0, 1)).unflatten(0, z.shape[:2]), tuple(f"z[{dim}]" for dim in dims.tolist())
    return ImageGrid(images=images, row_names=names, caption=CAPTIONS["traversals"])


def nearest_images(
    samples: Tensor,
    datamodule: DataModule,
    *,
    num_neighbours: int,
    embed: Callable[[Batch], Tensor] | None = None,
) -> Tensor:
    """The most similar train images of each sample, nearest first, shape (num_neighbours, N, C, H, W) in [0, 1].

    Args:
        samples: Images (N, C, H, W) in [0, 1].
        datamodule: Where the train images are.
        num_neighbours: How many of them, cut to the number of train images.
        embed: Features (B, D) whose Euclidean distance counts; None for pixels.
    """

    def features(images: Tensor) -> Tensor:
        return as_float(images).flatten(1) if embed is None else embed({"image": images}).float()

    wanted = features(samples)
    best = torch.full((len(samples), 0), torch.inf, device=samples.device)
    rows = torch.zeros_like(best, dtype=torch.long)
    column = datamodule.columns("train")["image"]
    for numbers, images in _chunks(column, samples.device):
        found = torch.cdist(wanted, features(images))
        best, order = torch.cat([best, found], 1).topk(
            min(num_neighbours, best.shape[1] + found.shape[1]), largest=False
        )
        rows = torch.cat([rows, numbers.expand(len(samples), -1)], 1).gather(1, order)
    images = torch.as_tensor(column[rows.flatten().cpu().numpy()]).to(samples.device)
    return as_float(images).unflatten(0, rows.shape).transpose(0, 1)


def latent_dim(method: Method) -> int:
    """Width of the latents that a method decodes: that of its first generator."""
    return next(module for module in method.modules() if isinstance(module, Generator)).latent_dim


def _chunks(column: Any, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    number = min(len(column), MAX_TRAIN)
    for start in range(0, number, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, number))
        yield torch.from_numpy(rows).to(device), torch.as_tensor(column[rows]).to(device)
