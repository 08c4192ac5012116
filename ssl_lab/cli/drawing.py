"""Shared parts of the commands that draw images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssl_lab.cli import build as config
from ssl_lab.cli.data_of_run import data_for_run
from ssl_lab.data.base import DataModule
from ssl_lab.devices import find_device
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.outputs import check_output, clear, marked
from ssl_lab.pictures.figures import on_white
from ssl_lab.pictures.render import render
from ssl_lab.types import ImageGrid

COLUMNS = 16


_SOFTWARE = ("Software", "ssl_lab")


_IS_OURS = marked("\0".join(_SOFTWARE).encode(), begin=b"\x89PNG")


def load(cfg: DictConfig) -> tuple[Method, DataModule]:
    """The method of ``cfg.run`` on the device, and images of the run's shape."""
    run_dir = Path(cfg.run)
    run_cfg, spec, method = config.load_run(run_dir)
    datamodule = data_for_run(run_cfg, run_dir, spec, cfg.get("data"))
    if datamodule.spec.shape != spec.shape:
        raise ValueError(
            f"The run was trained on images of shape {spec.shape}, but data= has {datamodule.spec.shape}. Set "
            "data.image_size and data.channels to the run's."
        )
    return method.to(find_device()), datamodule


def need(method: Method, capability: str, lacks: str, remedy: str) -> Any:
    """A capability of the method, or a message that says which methods have it."""
    offered = method.capabilities()
    if capability not in offered:
        raise ValueError(f"{type(method).__name__} {lacks}. Give run= a run of {remedy}.")
    return offered[capability]


def output_of(cfg: DictConfig, run_dir: Path, name: str, *, png: bool = False) -> Path:
    """The checked output path of a picture or folder, freed of the remains of killed processes."""
    if not cfg.out:
        config.read_setup(run_dir)  # else the error would be about writing to a folder that is no run
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


def save_picture(grid: ImageGrid, out: Path) -> int:
    """Write the grid on white as a PNG file and say where it is."""
    said = PngInfo()
    said.add_text(*_SOFTWARE)
    picture = Image.fromarray(on_white(render(grid)))
    write_atomically(out, lambda path: picture.save(path, "PNG", pnginfo=said), through_link=True)
    print(out)
    return 0
