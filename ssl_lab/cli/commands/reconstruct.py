"""The commands that draw images: samples as a grid or as many files, ``ssl-lab reconstruct``, ``ssl-lab interpolate``."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from ssl_lab.cli.drawing import COLUMNS, load, need, output_of, save_picture
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.modalities.image import as_float
from ssl_lab.types import ImageGrid


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab reconstruct``: images above what remains of them after encoding and decoding."""
    out = output_of(cfg, Path(cfg.run), "reconstructions.png", png=True)
    method, datamodule = load(cfg)
    fn = need(method, "reconstruct", "reconstructs no images", "a VAE, VQ-VAE or masked autoencoder")
    num_images = len(datamodule.columns(cfg.split)["image"])
    if not 1 <= cfg.num_images <= num_images:
        raise ValueError(f"Cannot draw num_images={cfg.num_images}: the {cfg.split} split has {num_images}.")
    loader = datamodule.eval_dataloader(cfg.split)
    loader.batch_size = cfg.num_images
    batch = {name: column.to(method.device) for name, column in next(iter(loader)).items()}
    reconstructed = fn(batch)
    check_finite(reconstructed, cfg.split, what="Reconstructions", use="shown")
    rows = torch.stack([as_float(batch["image"]), reconstructed])
    parts = [part for k in range(0, cfg.num_images, COLUMNS) for part in rows[:, k : k + COLUMNS]]
    width = min(COLUMNS, cfg.num_images)
    parts = [torch.cat([part, torch.ones_like(parts[0])[: width - len(part)]]) for part in parts]
    return save_picture(ImageGrid(images=torch.stack(parts)), out)
