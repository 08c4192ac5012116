"""The commands that draw images: samples as a grid or as many files, ``ssl-lab reconstruct``, ``ssl-lab interpolate``."""

from __future__ import annotations

import inspect
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import Progress
from torch import Tensor

from ssl_lab.cli import config
from ssl_lab.cli.process import compose_settings, find_device
from ssl_lab.data.base import DataModule
from ssl_lab.encoders.image import as_float
from ssl_lab.engine.checkpoint import checkpoint_identity, find_checkpoint
from ssl_lab.engine.generative_pictures import interpolation, latent_dim, lerp, slerp
from ssl_lab.engine.pictures import render
from ssl_lab.engine.sample_files import SampleFiles
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.outputs import check_output, clear, marked
from ssl_lab.types import DataSpec, ImageGrid

_COLUMNS = 16
_SOFTWARE = ("Software", "ssl_lab")
_IS_OURS = marked("\0".join(_SOFTWARE).encode(), begin=b"\x89PNG")


def draw_samples(method: Method, spec: DataSpec, run_dir: Path, cfg: DictConfig) -> int:
    """A grid of samples in a PNG file, or a folder of many."""
    out = _out(cfg, run_dir, "samples.png")
    seed = cfg.seed or 0
    if cfg.num_samples is not None and cfg.num_samples < 1:
        raise ValueError(f"Cannot draw num_samples={cfg.num_samples}. Choose 1 or more.")
    chosen = {name: cfg[name] for name in ("label", "truncation") if cfg[name] is not None}
    sample = partial(_sample, method, _options(method, spec, chosen))
    if out.suffix == ".png":
        if cfg.format is not None:
            raise ValueError(
                f"format={cfg.format} is that of the files in a folder. Give out= a folder, not {out.name}."
            )
        num_samples = 80 if cfg.num_samples is None else cfg.num_samples
        images = sample(num_samples, torch.Generator(method.device).manual_seed(seed))
        columns = min(_COLUMNS, num_samples)
        rows = -(-num_samples // columns)
        blank = torch.ones(rows * columns - len(images), *images.shape[1:], device=images.device)
        return _save(ImageGrid(images=torch.cat([images, blank]).unflatten(0, (rows, columns))), out)

    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if method.device.type == "cuda":
        method.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))))
    files = SampleFiles(
        out,
        num_samples=1000 if cfg.num_samples is None else cfg.num_samples,
        seed=seed,
        format=cfg.format or "png",
        facts={"run": str(run_dir), **checkpoint_identity(find_checkpoint(run_dir)), **chosen},
    )
    done = 0
    try:
        with Progress(transient=True, disable=rank > 0 or not sys.stderr.isatty()) as progress:
            bar = progress.add_task("samples", total=-(-files.num_samples // world_size))
            for done in files.write(sample, method.device, rank=rank, world_size=world_size):
                progress.update(bar, completed=done)
    except KeyboardInterrupt:
        print("ssl-lab: Stopped. Run the same command again to continue after the finished files.", file=sys.stderr)
        return 130
    share = f" by process {rank} of {world_size}" if world_size > 1 else ""
    print(f"{done:,} samples{share}: {out}")
    return 0


def _sample(method: Method, options: dict[str, Any], num_samples: int, generator: torch.Generator) -> Tensor:
    """Samples, all of one class if ``options`` names one."""
    given = {name: torch.full((num_samples,), value) if name == "label" else value for name, value in options.items()}
    given = {name: value.to(method.device) if isinstance(value, Tensor) else value for name, value in given.items()}
    images: Tensor = method.capabilities()["sample"](num_samples, generator, **given)
    check_finite(images, "drawn", what="Pixels", use="shown")
    return images


def _options(method: Method, spec: DataSpec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that the method's samples do not take."""
    taken = inspect.signature(method.capabilities()["sample"]).parameters
    for name, value in chosen.items():
        if name not in taken:
            known = [option for option in ("label", "truncation") if option in taken]
            raise ValueError(
                f"Cannot use {name}={value}: samples of {type(method).__name__} take "
                f"{', '.join(known) or 'neither label nor truncation'}. Leave {name} out."
            )
    label, number = chosen.get("label"), spec.num_classes
    if label is not None and not (isinstance(label, int) and 0 <= label < (number or 0)):
        raise ValueError(f"Cannot draw label={label}: the run's classes are 0 to {(number or 0) - 1}.")
    return chosen


def reconstruct(args: list[str]) -> int:
    """``ssl-lab reconstruct``: images above what remains of them after encoding and decoding."""
    cfg = compose_settings("reconstruct", args)
    out = _out(cfg, Path(cfg.run), "reconstructions.png", png=True)
    method, datamodule = _load(cfg)
    fn = _need(method, "reconstruct", "reconstructs no images", "a VAE, VQ-VAE or masked autoencoder")
    num_images = len(datamodule.columns(cfg.split)["image"])
    if not 1 <= cfg.num_images <= num_images:
        raise ValueError(f"Cannot draw num_images={cfg.num_images}: the {cfg.split} split has {num_images}.")
    loader = datamodule.eval_dataloader(cfg.split)
    loader.batch_size = cfg.num_images
    batch = {name: column.to(method.device) for name, column in next(iter(loader)).items()}
    reconstructed = fn(batch)
    check_finite(reconstructed, cfg.split, what="Reconstructions", use="shown")
    rows = torch.stack([as_float(batch["image"]), reconstructed])
    parts = [part for k in range(0, cfg.num_images, _COLUMNS) for part in rows[:, k : k + _COLUMNS]]
    width = min(_COLUMNS, cfg.num_images)
    parts = [torch.cat([part, torch.ones_like(parts[0])[: width - len(part)]]) for part in parts]
    return _save(ImageGrid(images=torch.stack(parts)), out)


def interpolate(args: list[str]) -> int:
    """``ssl-lab interpolate``: a walk between two images, or between two latents of the prior."""
    cfg = compose_settings("interpolate", args)
    ends_given = cfg.first is not None or cfg.second is not None
    if ends_given and cfg.seed is not None:
        raise ValueError("first= and second= choose two images, seed= two latents of the prior. Give one or the other.")
    if cfg.steps < 2:
        raise ValueError(f"Cannot walk in steps={cfg.steps}: both ends are shown. Choose 2 or more.")
    out = _out(cfg, Path(cfg.run), "interpolation.png", png=True)
    method, datamodule = _load(cfg)
    decode = _need(method, "decode", "makes no images of latents", "a VAE or GAN")
    if ends_given or ("encode" in method.capabilities() and cfg.seed is None):
        encode = _need(method, "encode", "encodes no images, so that first= and second= mean nothing", "a VAE")
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
    return _save(grid, out)


def _load(cfg: DictConfig) -> tuple[Method, DataModule]:
    run_dir = Path(cfg.run)
    run_cfg, spec, method = config.load_run(run_dir)
    datamodule = config.data_for_run(run_cfg, run_dir, spec, cfg.get("data"))
    if datamodule.spec.shape != spec.shape:
        raise ValueError(
            f"The run was trained on images of shape {spec.shape}, but data= has {datamodule.spec.shape}. Set "
            "data.image_size and data.channels to the run's."
        )
    return method.to(find_device()), datamodule


def _need(method: Method, capability: str, lacks: str, remedy: str) -> Any:
    offered = method.capabilities()
    if capability not in offered:
        raise ValueError(f"{type(method).__name__} {lacks}. Give run= a run of {remedy}.")
    return offered[capability]


def _out(cfg: DictConfig, run_dir: Path, name: str, *, png: bool = False) -> Path:
    """Where the picture or folder is written, which was tried; what a killed process left there is removed."""
    if not cfg.out:
        config.read_run(run_dir)  # else the error would be about writing to a folder that is no run
    out = Path(cfg.out or run_dir / name)
    if png and out.suffix != ".png":
        raise ValueError(f"Cannot write out={out}: the picture is a PNG file. Give out= a name that ends in .png.")
    check_output(
        out,
        folder=out.suffix != ".png",
        instead="" if cfg.out else f"Give out=FILE, such as {name}.",
        ours=_IS_OURS if cfg.out else None,
    )
    if int(os.environ.get("RANK", 0)) == 0:
        clear(out, runs=[run_dir])
    return out


def _save(grid: ImageGrid, out: Path) -> int:
    said = PngInfo()
    said.add_text(*_SOFTWARE)
    write_atomically(out, lambda path: Image.fromarray(render(grid)).save(path, "PNG", pnginfo=said), through_link=True)
    print(out)
    return 0
