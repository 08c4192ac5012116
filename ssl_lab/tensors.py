"""Tensors in files that others may have written: read as data, every byte checked, never code."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_lab.limited import open_regular, printable

# What zipfile, torch and its unpickler raise on damaged files.
DAMAGED = (
    OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, TypeError,
    AttributeError, LookupError, AssertionError, OverflowError, struct.error, SafetensorError,
)  # fmt: skip

_MOST_STRUCTURE = 32 << 20  # bytes of everything but the tensors, which become a hundred times as many in memory
_MOST_LEVELS = 8
_BYTES_OF_ANY_SIZE = re.compile(rb"c(?:__builtin__|builtins)\nbytearray\n")
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All named tensors of a file, those within others under dotted names: ``teacher.backbone.norm.weight``.

    Args:
        path: A ``.safetensors`` file, what ``torch.save`` wrote, or a folder of transformers or timm with one of them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds code or objects, or no named tensors.
    """
    if path.is_dir():
        path = _weights_in(path)
    try:
        open_regular(path).close()
        contents = load_file(path) if path.suffix == ".safetensors" else load_plain(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Cannot read weights from {path}: there is no such file.") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Cannot read weights from {path}: it holds code or objects beside tensors, and nothing of it was run "
            f"({printable(str(error).strip().splitlines()[0][:200])}). Save its state dict alone, as a .safetensors file."
        ) from error
    except DAMAGED as error:
        reason = printable(next(iter(str(error).splitlines()), type(error).__name__)[:200])
        raise ValueError(
            f"Cannot read weights from {path}: it is damaged or no file of weights ({reason}). Give a .safetensors file, or "
            "what torch.save writes today."
        ) from error
    found = _flat(contents)
    if not found:
        raise ValueError(f"Cannot read weights from {path}: it holds no named tensors. Give a file with a state dict.")
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as a ``.safetensors`` file; those that share memory are written apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)


def load_plain(path: Path) -> Any:
    """Load a file of ``torch.save`` onto the CPU: tensors and plain containers, and the arguments of a command line.

    Raises:
        pickle.UnpicklingError: If it holds anything else.
        Exception: One of :data:`DAMAGED`.
    """
    check_archive(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # about pickle protocols, before the error that says more
        return torch.load(path, map_location="cpu", weights_only=True)


def check_archive(path: Path) -> None:
    """Compare every part of the archive with the sum that was written with it, which ``torch.load`` does not.

    Raises:
        ValueError: If a part is compressed or lies in another one, or values are made that no file holds: a small file would
            fill the memory.
        zipfile.BadZipFile: If one differs, or the file is a part of an archive. What is small and no archive at all is left
            to ``torch.load`` to refuse.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(_MOST_STRUCTURE + 1)
        if len(head) > _MOST_STRUCTURE or head.startswith(b"PK") or _BYTES_OF_ANY_SIZE.search(head):
            raise zipfile.BadZipFile("it is no whole archive as torch writes it")
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if packed or sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts would be larger than the file, which those of torch never are")
        for part in parts:
            if part.filename.endswith(".pkl"):
                if part.file_size > _MOST_STRUCTURE:
                    raise ValueError(f"the names and sizes of its tensors take more than {_MOST_STRUCTURE:,} bytes")
                if _BYTES_OF_ANY_SIZE.search(archive.read(part)):
                    raise ValueError("it asks for bytes that it does not hold")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} in it is wrong")


def _weights_in(folder: Path) -> Path:
    found = next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"Cannot read weights from the folder {folder}: it holds no {' and no '.join(_IN_FOLDERS)}. Give a file."
        )
    return found


def _flat(node: Any, prefix: str = "", level: int = 0) -> dict[str, Tensor]:
    if not isinstance(node, Mapping) or level > _MOST_LEVELS:
        return {}
    found: dict[str, Tensor] = {}
    for key, value in node.items():
        if isinstance(key, str):
            if isinstance(value, Tensor):
                found[prefix + key] = value
            else:
                found |= _flat(value, f"{prefix}{key}.", level + 1)
    return found
