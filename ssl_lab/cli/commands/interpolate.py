"""``ssl-lab interpolate``: a walk between two images or latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from ssl_lab.cli.drawing import load, need, output_of, save_picture
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.pictures.generative import interpolation, latent_dim, lerp, slerp


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab interpolate``: a walk between two images, or between two latents of the prior."""
    ends_given = cfg.first is not None or cfg.second is not None
    if ends_given and cfg.seed is not None:
        raise ValueError("first= and second= choose two images, seed= two latents of the prior. Give one or the other.")
    if cfg.steps < 2:
        raise ValueError(f"Cannot draw steps={cfg.steps}: both ends are shown. Choose 2 or more.")
    out = output_of(cfg, Path(cfg.run), "interpolation.png", png=True)
    method, datamodule = load(cfg)
    decode = need(method, "decode", "makes no images of latents", "a VAE or GAN")
    if ends_given or ("encode" in method.capabilities() and cfg.seed is None):
        encode = need(method, "encode", "encodes no images, so that first= and second= mean nothing", "a VAE")
        rows = [0 if cfg.first is None else cfg.first, 1 if cfg.second is None else cfg.second]
        column = datamodule.columns(cfg.split)["image"]
        if not all(0 <= row < len(column) for row in rows):
            raise ValueError(
                f"Cannot walk from image {rows[0]} to {rows[1]}: the {cfg.split} split has 0 to {len(column) - 1}."
            )
        images = torch.as_tensor(column[np.array(rows)]).to(method.device)
        codes, mix = encode({"image": images, "index": torch.tensor(rows, device=method.device)}), lerp
    else:
        generator = torch.Generator(method.device).manual_seed(cfg.seed or 0)
        codes, mix = torch.randn(2, latent_dim(method), device=method.device, generator=generator), slerp
    grid = interpolation(decode, codes[:1], codes[1:], mix=mix, num_steps=cfg.steps)
    check_finite(grid.images.flatten(0, 1), "interpolated", what="Pixels", use="shown")
    return save_picture(grid, out)
