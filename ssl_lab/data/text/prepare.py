"""A text corpus, tokenised once into shards that are read as memory maps."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.text import encode
from ssl_lab.data.text.base import TextCounts, TextModule
from ssl_lab.data.text.shards import MANIFEST, TOKENIZER, read_manifest, write_manifest
from ssl_lab.data.text.tokenizer import load_tokenizer, plain_backend, tokenizer_digest
from ssl_lab.outputs import clear, unfinished_folder

_WORDS = {"num_documents": "documents", "num_words": "words", "num_bytes": "bytes"}


def prepare(
    datamodule: TextModule, out: Path, *, num_workers: int | None = None, shard_mib: float = 16.0
) -> dict[str, Any]:
    """Tokenise all splits of a corpus into ``out``, in several processes; continue where an earlier call was stopped.

    ``out`` holds ``manifest.json``, ``tokenizer/``, and for each shard a file of ids (uint16, or uint32 for more than 65,536
    ids) and a file of document lengths. A shard is written beside and renamed, so what is there is whole. Length,
    framing and packing of rows are not decided here. The manifest keeps a checksum of each file; shards whose files have
    changed are written again.

    Args:
        datamodule: The corpus, its splits and its tokenizer; its length, framing and packing of rows do not matter, but
            a tokenizer that is trained has an end-of-text token only if its framing is ``causal``.
        out: A new folder, or one that an earlier call has begun.
        num_workers: Processes that tokenise; None for one per core.
        shard_mib: Text of a shard in MiB; a few times ``num_workers`` times this is held in memory.

    Returns:
        The manifest.

    Raises:
        ValueError: If the corpus is labelled or blank, or ``out`` holds shards of another corpus, tokenizer or setting.
    """
    if num_workers is not None and num_workers < 1 or shard_mib <= 0:
        raise ValueError(f"num_workers and shard_mib must be positive, found {num_workers} and {shard_mib}.")
    if datamodule.class_names:
        raise ValueError(
            "Shards hold text without labels, but label_column was given. Set data.label_column=null, or train on labelled "
            "text directly."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        with lock:
            return _prepare(datamodule, out, num_workers=num_workers or os.cpu_count() or 1, shard_mib=shard_mib)
    except Timeout as error:
        raise ValueError(f"Another process is preparing {out}. Wait for it, or choose another out=.") from error


def _prepare(datamodule: TextModule, out: Path, *, num_workers: int, shard_mib: float) -> dict[str, Any]:
    clear(out)
    others = [path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")]
    if others and MANIFEST not in others:
        raise ValueError(
            f"Cannot write shards to {out}: it holds {others[0]}, but no {MANIFEST} of shards. Give out= a new folder."
        )
    splits = {split: _survey(datamodule, split, shard_bytes=int(shard_mib * 2**20)) for split in datamodule.splits}
    facts = {**_settings(datamodule), **{f"text of {split}": survey.pop("sha256") for split, survey in splits.items()}}
    manifest: dict[str, Any] = {
        "title": datamodule.title,
        "finished": False,
        "facts": facts,
        "tokenizer": None,
        "splits": splits,
    }
    if (out / MANIFEST).is_file():
        known = read_manifest(out)
        _refuse_other(out, known["facts"], facts)
        manifest = {**known, "finished": False}
    write_manifest(out, manifest)
    tokenizer = _tokenizer(datamodule, out, manifest["tokenizer"])
    manifest["tokenizer"] = {"digest": tokenizer_digest(tokenizer), "vocab_size": len(tokenizer)}
    write_manifest(out, manifest)
    _encode(datamodule, tokenizer, manifest["splits"], out, num_workers=num_workers)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            if "crc32" not in shard:
                files = {"ids": encode.ids_file(out, shard["name"]), "lengths": encode.lengths_file(out, shard["name"])}
                shard["crc32"] = {name: encode.checksum(file) for name, file in files.items()}
            shard["num_tokens"] = len(np.load(encode.ids_file(out, shard["name"]), mmap_mode="r"))
        split["num_tokens"] = sum(shard["num_tokens"] for shard in split["shards"])
    manifest["finished"] = True
    write_manifest(out, manifest)
    return manifest


def _survey(datamodule: TextModule, split: str, *, shard_bytes: int) -> dict[str, Any]:
    """Survey a split: a hash of its texts, its counts, and the number of documents of each shard."""
    digest = hashlib.sha256()
    totals = dict.fromkeys(_WORDS, 0)
    shards: list[int] = []
    filled = shard_bytes
    for texts in datamodule.documents(split):
        for text in texts:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
            totals["num_documents"] += 1
            totals["num_words"] += len(text.split())
            totals["num_bytes"] += len(content)
            if filled >= shard_bytes:
                shards.append(0)
                filled = 0
            shards[-1] += 1
            filled += len(content)
    if not shards:
        raise ValueError(
            f"The {split} split has no text: all of its samples are blank. Check the files, or the text column."
        )
    return {
        "sha256": digest.hexdigest()[:20],
        "counts": asdict(TextCounts(**totals)),
        "shards": [{"name": f"{split}-{k:05d}", "num_documents": num} for k, num in enumerate(shards)],
    }


def _settings(datamodule: TextModule) -> dict[str, Any]:
    """Return the settings that decide the ids, beside the texts."""
    cuts = {name: getattr(datamodule, name) for name in ("val_fraction", "test_fraction", "split_seed")}
    if datamodule.tokenizer_name is not None:
        return {**cuts, "tokenizer": tokenizer_digest(datamodule.tokenizer)}
    trained = {name: getattr(datamodule, name) for name in ("tokenizer_kind", "vocab_size", "framing")}
    return {**cuts, "tokenizer": "trained", **trained}


def _refuse_other(out: Path, known: dict[str, Any], asked: dict[str, Any]) -> None:
    differing = [name for name in {**known, **asked} if known.get(name) != asked.get(name)]
    if differing:
        found = ", ".join(f"{name}: {known.get(name)} there, {asked.get(name)} now" for name in differing)
        raise ValueError(
            f"{out} holds shards that were made otherwise ({found}). Choose another out=, or remove {out} to prepare it "
            "again."
        )


def _tokenizer(datamodule: TextModule, out: Path, known: dict[str, Any] | None) -> PreTrainedTokenizerFast:
    """The tokenizer, from ``out`` if an earlier call has left it there."""
    folder = out / TOKENIZER
    if not folder.is_dir():
        with unfinished_folder(folder) as unfinished:
            datamodule.tokenizer.save_pretrained(unfinished)
            unfinished.rename(folder)
    tokenizer = load_tokenizer(str(folder), framing=datamodule.framing)
    if known is not None and known["digest"] != tokenizer_digest(tokenizer):
        raise ValueError(
            f"{folder} has changed since shards were written with it. Restore it, or remove {out} to prepare it again."
        )
    return tokenizer


def _encode(
    datamodule: TextModule, tokenizer: PreTrainedTokenizerFast, splits: dict[str, Any], out: Path, *, num_workers: int
) -> None:
    """Write the shards that are missing."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "split_special_tokens": bool(tokenizer.split_special_tokens),
    }
    backend = plain_backend(tokenizer).to_str()
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),  # the library's threads do not survive a fork
        initializer=encode.start_worker,
        initargs=(backend,),
    )
    running: set[Future[int]] = set()
    with pool:
        for split, facts in splits.items():
            missing = {shard["name"] for shard in facts["shards"] if not encode.is_whole(out, shard)}
            if not missing:
                continue
            for shard in facts["shards"]:
                if shard["name"] in missing:
                    shard.pop("crc32", None)  # the file that it was of is gone
            for shard, texts in _by_shard(datamodule, split, facts["shards"]):
                if shard["name"] not in missing:
                    continue
                if len(running) > num_workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                running.add(pool.submit(encode.encode_shard, out, shard["name"], texts, **settings))
        for future in running:
            future.result()


def _by_shard(
    datamodule: TextModule, split: str, shards: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each shard with its documents."""
    waiting = iter(shards)
    shard, held = next(waiting), []
    for texts in datamodule.documents(split):
        for text in texts:
            held.append(text)
            if len(held) == shard["num_documents"]:
                yield shard, held
                shard, held = next(waiting, shard), []
