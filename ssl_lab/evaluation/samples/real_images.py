"""Features of real images, which do not change while a generator is trained: computed once and kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lab.data.base import DataModule
from ssl_lab.data.store import build_once, fingerprint
from ssl_lab.devices import placed
from ssl_lab.types import Batch

MAX_REAL = 50_000
"""More images of a split than this are not looked at; which ones is drawn with a fixed seed."""

_VERSION = 1  # raise it when the same facts would be computed to other tensors
_ROWS_AT_ONCE = 4096


def module_digest(module: nn.Module) -> str:
    """Hash of a network: its layers, parameters and buffers."""
    digest = hashlib.sha256(repr(module).encode())
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:20]


def content_digest(datamodule: DataModule, split: str) -> str:
    """Hash of the images and labels of a split, every byte of them."""
    digest = hashlib.sha256()
    columns = datamodule.columns(split)
    for name in ("image", "label"):
        if name in columns:
            column = columns[name]
            digest.update(f"{name} {tuple(column.shape)} {column.dtype}".encode())
            for start in range(0, len(column), _ROWS_AT_ONCE):
                rows = column[np.arange(start, min(start + _ROWS_AT_ONCE, len(column)))]
                digest.update(np.ascontiguousarray(torch.as_tensor(rows).cpu().numpy()).tobytes())
    return digest.hexdigest()[:20]


def cached(facts: Any, compute: Callable[[], Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Tensors that are functions of plain facts: read from the cache folder, or computed and put there.

    Args:
        facts: Everything that the tensors depend on.
        compute: Called if nothing is there, by one process while others wait.
        device: Where the tensors are put.

    Raises:
        ValueError: If the cache folder cannot be written to.
    """

    def build(folder: Path) -> None:
        torch.save({name: value.cpu() for name, value in compute().items()}, folder / "tensors.pt")

    folder = build_once(f"real-images-{fingerprint([_VERSION, facts])}", build)
    kept = torch.load(folder / "tensors.pt", map_location="cpu", weights_only=True)
    return {name: placed(value, device) for name, value in kept.items()}


@torch.no_grad()
def real_features(
    embed: Callable[[Batch], Tensor],
    datamodule: DataModule,
    split: str,
    device: torch.device,
    *,
    most: int | None = None,
) -> dict[str, Tensor]:
    """Features ``x`` (N, D), fp32, and where there are any labels ``y`` (N,), of a split or ``most`` rows of it, 50,000."""
    loader = datamodule.eval_dataloader(split)
    order = torch.randperm(loader.num_samples, generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros(loader.num_samples, dtype=torch.bool)
    chosen[order[: most or MAX_REAL]] = True
    features, labels = [], []
    for batch in loader:
        rows = chosen[batch["index"].cpu()].to(batch["image"].device)
        if rows.any():
            features.append(embed({"image": batch["image"][rows].to(device)}).float())
            if "label" in batch:
                labels.append(batch["label"][rows].to(device))
    return {"x": torch.cat(features), **({"y": torch.cat(labels)} if labels else {})}


def some_rows(x: Tensor, number: int, seed: int) -> Tensor:
    """Up to ``number`` rows, drawn without replacement: a split may be sorted by class."""
    generator = torch.Generator().manual_seed(seed)
    return x[torch.randperm(len(x), generator=generator)[:number].to(x.device)]
