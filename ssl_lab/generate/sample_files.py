"""Write many samples as files, batch by batch, on any number of processes; and resumed after a stop."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_lab.files import temporary_name, write_atomically
from ssl_lab.runs.directory import read_json, write_json

BATCH = 250
"""Samples drawn together, and images of an npz file; fixed, so that image i is a function of the seed and i alone."""

FORMATS = ("png", "npz")
FACTS = "samples.json"


class SampleFiles:
    """A folder of samples: ``00000042.png`` each, or ``00000000.npz`` of 250 as uint8 ``images`` (N, H, W, C).

    PNG files are what other tools and ``data=image_folder`` read; npz files are fewer and faster. Batch k is drawn from a
    stream of its own, seeded by (seed, k): any number of processes, stopped and started again, writes the same files. A
    file is complete or not there.

    Args:
        out: The folder.
        num_samples: Number of samples; may be raised later.
        seed: Seed of the latents.
        format: ``png`` or ``npz``.
        facts: What else the samples depend on, kept in ``samples.json``.

    Raises:
        ValueError: If there is no such format, no sample is asked for, or the folder holds samples of other facts, more
            samples, or other files.
    """

    def __init__(
        self,
        out: Path,
        *,
        num_samples: int,
        seed: int = 0,
        format: Literal["png", "npz"] = "png",
        facts: Mapping[str, Any],
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"There is no format {format!r}. Choose format= from {', '.join(FORMATS)}.")
        if num_samples < 1:
            raise ValueError(f"Cannot draw num_samples={num_samples}. Choose 1 or more.")
        self.out = out
        self.num_samples = num_samples
        self.seed = seed
        self.format = format
        self.facts = {**facts, "num_samples": num_samples, "seed": seed, "format": format, "batch": BATCH}
        self._check_folder()

    def write(
        self,
        sample: Callable[[int, torch.Generator], Tensor],
        device: torch.device,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[int]:
        """Draw and write this process's missing batches; yields how many of its samples are written so far.

        Args:
            sample: Images (N, C, H, W) in [0, 1] from their number and a stream.
            device: Where the streams are.
            rank: Which process this is, of ``world_size``; process r writes batches r, r + world_size, ...
            world_size: Number of processes.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / FACTS, self.facts)  # the same whichever process comes first
        done = 0
        for batch in range(rank, -(-self.num_samples // BATCH), world_size):
            numbers = range(batch * BATCH, min((batch + 1) * BATCH, self.num_samples))
            if not self._is_there(numbers):
                generator = torch.Generator(device).manual_seed(_seed(self.seed, batch))
                # A whole batch, whose first images are always the same.
                images = sample(BATCH, generator)[: len(numbers)]
                self._write(numbers, images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
            done += len(numbers)
            yield done

    def _is_there(self, numbers: range) -> bool:
        if self.format == "png":
            return all(self._path(number).is_file() for number in numbers)
        path = self._path(numbers[0])
        return path.is_file() and len(np.load(path)["images"]) >= len(numbers)

    def _write(self, numbers: range, images: np.ndarray[Any, Any]) -> None:
        if self.format == "npz":
            write_atomically(self._path(numbers[0]), lambda path: _save_npz(path, images))
            return
        for number, pixels in zip(numbers, images, strict=True):
            # Renamed but not flushed to the disk one by one, which takes longer than to draw them.
            temporary = self.out / temporary_name(f"{number:08d}")
            Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(temporary, "PNG")
            os.replace(temporary, self._path(number))

    def _path(self, number: int) -> Path:
        return self.out / f"{number:08d}.{self.format}"

    def _check_folder(self) -> None:
        if not self.out.is_dir() or all(path.name.startswith(".") for path in self.out.iterdir()):
            return
        known = read_json(self.out / FACTS)
        if not known:
            raise ValueError(
                f"Cannot write samples to {self.out}: the folder holds other files. Give out= a new folder."
            )
        differing = [name for name in self.facts if name != "num_samples" and known.get(name) != self.facts[name]]
        if known["num_samples"] > self.num_samples:
            differing.append("num_samples")
        if differing:
            found = ", ".join(f"{name}: {known.get(name)} there, {self.facts[name]} asked for" for name in differing)
            raise ValueError(
                f"{self.out} holds samples that were drawn otherwise ({found}). Give out= a new folder, or ask for the same."
            )


def _seed(seed: int, batch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {batch}".encode()).digest()[:7], "big")


def _save_npz(path: Path, images: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, images=images)
