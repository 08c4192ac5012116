"""One shard: texts in, a file of ids and a file of lengths out. Imports nothing slow, as worker processes start with it."""

from __future__ import annotations

import os
import signal
import threading
import tokenize
import zlib
from collections.abc import Mapping, Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssl_lab.files import write_atomically

DAMAGED = (OSError, ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError)
"""Errors that ``numpy.load`` raises on damaged files."""
_TEXTS_AT_ONCE = 256
_worker: dict[str, Tokenizer] = {}


def ids_file(folder: Path, name: str) -> Path:
    """Token ids of a shard, without special tokens, one document after the other."""
    return folder / f"{name}.ids.npy"


def lengths_file(folder: Path, name: str) -> Path:
    """Number of tokens of each document of a shard."""
    return folder / f"{name}.lengths.npy"


def checksum(file: Path) -> str:
    """CRC-32 of a file's content, which any flipped bit changes."""
    total = 0
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


def is_whole(folder: Path, shard: Mapping[str, Any]) -> bool:
    """Return whether both files of a shard exist and fit each other, its document count and any known checksums."""
    files = {"ids": ids_file(folder, shard["name"]), "lengths": lengths_file(folder, shard["name"])}
    try:
        if any(checksum(files[name]) != known for name, known in shard.get("crc32", {}).items()):
            return False
        ids, lengths = np.load(files["ids"], mmap_mode="r"), np.load(files["lengths"], mmap_mode="r")
    except DAMAGED:  # or missing
        return False
    return len(lengths) == shard["num_documents"] and int(lengths.sum(dtype=np.int64)) == len(ids)


def smallest_type(largest: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds a number."""
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(kind).max)


def start_worker(tokenizer: str) -> None:
    """Prepare a worker process; it ends with its parent, even if that is killed, and Ctrl-C is the parent's to handle.

    Args:
        tokenizer: The tokenizer as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many workers as cores
    _worker["tokenizer"] = Tokenizer.from_str(tokenizer)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    connection.wait([parent])
    os._exit(1)


def encode_shard(folder: Path, name: str, texts: Sequence[str], *, vocab_size: int, split_special_tokens: bool) -> int:
    """Write a shard, the file of its ids last.

    Args:
        folder: Where to.
        name: Name of the shard.
        texts: Its documents.
        vocab_size: Number of ids, which decides the type they are stored in.
        split_special_tokens: Read special tokens that are written out in the text as plain characters.

    Returns:
        Number of tokens.
    """
    tokenizer = _worker["tokenizer"]
    tokenizer.encode_special_tokens = split_special_tokens
    kind = np.uint16 if vocab_size <= np.iinfo(np.uint16).max + 1 else np.uint32
    ids: list[NDArray[Any]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = tokenizer.encode_batch_fast(texts[start : start + _TEXTS_AT_ONCE], add_special_tokens=False)
        encoded = [document.ids for document in batch]
        lengths += map(len, encoded)
        ids.append(np.fromiter((i for document in encoded for i in document), kind, count=sum(map(len, encoded))))
    joined = np.concatenate(ids)
    _save(lengths_file(folder, name), np.array(lengths, dtype=smallest_type(max(lengths))))
    _save(ids_file(folder, name), joined)
    return len(joined)


def _save(path: Path, array: NDArray[Any]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array)

    write_atomically(path, write)
