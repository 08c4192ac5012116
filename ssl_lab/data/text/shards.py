"""Pre-tokenised text: token ids in memory-mapped files, with a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import tell_once
from ssl_lab.data.files.layout import first_of
from ssl_lab.data.splits import find_split
from ssl_lab.data.store import fingerprint
from ssl_lab.data.text.base import TextCounts, TokenModule
from ssl_lab.data.text.encode import DAMAGED, checksum, ids_file, lengths_file
from ssl_lab.data.text.token_rows import TokenRows
from ssl_lab.data.text.tokenizer import load_tokenizer, tokenizer_digest
from ssl_lab.files import write_atomically
from ssl_lab.limited import read_text

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
_LARGEST_MANIFEST = 256 << 20


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder of shards atomically, with its digest."""
    text = json.dumps({**manifest, "digest": fingerprint(manifest)}, indent=2) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(folder / MANIFEST, write)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of :func:`write_manifest`.

    Raises:
        ValueError: If it has been changed or damaged since.
    """
    manifest: dict[str, Any] = {}
    try:
        manifest = json.loads(read_text(folder / MANIFEST, max_bytes=_LARGEST_MANIFEST))
        digest = manifest.pop("digest", None)
        same = digest in (None, fingerprint(manifest))
        reason = "" if same else "it does not have the digest that it was written with"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error)
    if reason:
        raise ValueError(
            f"{folder / MANIFEST} was changed or damaged after ssl-lab prepare had written it ({reason}). Restore it, or "
            f"remove {folder} and prepare the corpus again."
        )
    return manifest


@dataclass(kw_only=True, eq=False, repr=False)
class TokenShards(TokenModule):
    """A corpus that ``ssl-lab prepare`` has tokenised, read from memory maps.

    Rows are cut when they are asked for, and length, framing and packing are chosen at training time. Rows are those that
    the corpus' own data module has with the same settings. Opening a split compares its files with their checksums; of one
    larger than ``verify_gib`` it does not read the ids. ``ssl-lab prepare``, given once more, checks any size.

    Args:
        path: Folder that ``ssl-lab prepare`` has written.
        verify_gib: The ids of a split up to this size are compared with their checksums when it is opened.

    Raises:
        FileNotFoundError: If the folder holds no shards, or some are missing.
        ValueError: If the preparation is not finished, or the manifest, the tokenizer or a shard is not the one that was
            written.
    """

    path: str = field(kw_only=False)
    verify_gib: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.verify_gib < 0:
            raise ValueError(f"verify_gib is a size of 0 or more, found {self.verify_gib}. Set data.verify_gib.")
        self._folder = Path(self.path).expanduser()
        self._rows: dict[str, TokenRows] = {}

    @property
    def title(self) -> str:
        """The title of the corpus."""
        return str(self._manifest["title"])

    @cached_property
    def _manifest(self) -> Mapping[str, Any]:
        file = self._folder / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(
                f"Cannot read data.path={self._folder}: it holds no {MANIFEST}. Write it with "
                f"ssl-lab prepare data=text_files data.path=CORPUS out={self._folder}."
            )
        manifest = read_manifest(self._folder)
        if not manifest["finished"]:
            raise ValueError(
                f"The preparation of {self._folder} is not finished. Give its ssl-lab prepare command once more; finished "
                "shards are kept."
            )
        shards = [shard["name"] for split in manifest["splits"].values() for shard in split["shards"]]
        known = {of(self._folder, name).name for name in shards for of in (ids_file, lengths_file)}
        strangers = sorted({file.name for file in self._folder.glob("*.npy")} - known)
        if strangers:
            tell_once(
                f"{self._folder}: {len(strangers)} .npy files left out, not in {MANIFEST} ({first_of(strangers, num=2)})."
            )
        return manifest

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the ids, with ``decode`` and ``save_pretrained``."""
        expected = self._manifest["tokenizer"]["digest"]
        tokenizer = load_tokenizer(str(self._folder / TOKENIZER), framing=self.framing)
        if tokenizer_digest(tokenizer) != expected:
            raise ValueError(
                f"{self._folder / TOKENIZER} has changed since the shards were written with it. Restore it, or remove "
                f"{self._folder} and prepare the corpus again."
            )
        if self.tokenizer_name is not None:
            asked = load_tokenizer(self.tokenizer_name, framing=self.framing)
            if tokenizer_digest(asked) != expected:
                raise ValueError(
                    f"Cannot use the tokenizer {self.tokenizer_name}: {self._folder} was tokenised with another one. "
                    f"Prepare the corpus with data.tokenizer={self.tokenizer_name}."
                )
        return tokenizer

    def columns(self, split: str) -> Columns:
        """``input_ids``, and with packing ``document_ids``, both (N, max_length) and read when rows are asked for.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self._token_rows(split).columns()

    def column_digest(self, split: str, name: str) -> str:
        """Digest of the checksums of a split's shards, with which opening it compares its files."""
        splits = self._manifest["splits"]
        shards = [shard.get("crc32") for shard in splits[find_split(split, splits)]["shards"]]
        return super().column_digest(split, name) if None in shards else fingerprint(shards)

    def padding_share(self, split: str) -> float:
        """Share of all tokens of a split that are padding.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self._token_rows(split).padding_share

    def text_counts(self, split: str) -> TextCounts:
        """Return the amount of raw text that a split was made from.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        splits = self._manifest["splits"]
        return TextCounts(**splits[find_split(split, splits)]["counts"])

    def _token_rows(self, split: str) -> TokenRows:
        splits = self._manifest["splits"]
        stored = find_split(split, splits)
        if stored not in self._rows:
            num_bytes = splits[stored]["num_tokens"] * (2 if self._manifest["tokenizer"]["vocab_size"] <= 2**16 else 4)
            verified = num_bytes <= self.verify_gib * 2**30
            shards = [self._open(shard, verified=verified) for shard in splits[stored]["shards"]]
            self._rows[stored] = self.token_rows([ids for ids, _ in shards], [lengths for _, lengths in shards])
        return self._rows[stored]

    def _open(self, shard: Mapping[str, Any], *, verified: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """The map of a shard's ids, and the lengths of its documents."""
        files = {"ids": ids_file(self._folder, shard["name"]), "lengths": lengths_file(self._folder, shard["name"])}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(missing)} was written by ssl-lab prepare, but is gone. Give the command once more; other "
                "shards are kept."
            )
        changed = [
            files[name].name
            for name, known in shard.get("crc32", {}).items()
            if (verified or name == "lengths") and checksum(files[name]) != known
        ]
        if changed:
            raise self._damaged(shard, f"{' and '.join(changed)} has another checksum than when it was written")
        try:
            ids, lengths = np.load(files["ids"], mmap_mode="r"), np.array(np.load(files["lengths"], mmap_mode="r"))
        except DAMAGED as error:
            raise self._damaged(shard, str(error)) from error
        if len(ids) != shard["num_tokens"] or len(lengths) != shard["num_documents"] or lengths.sum() != len(ids):
            raise self._damaged(
                shard,
                f"it has {len(lengths)} documents and {len(ids)} tokens instead of {shard['num_documents']} and "
                f"{shard['num_tokens']}",
            )
        return ids, lengths

    def _damaged(self, shard: Mapping[str, Any], reason: str) -> ValueError:
        return ValueError(
            f"The shard {shard['name']} in {self._folder} is damaged: {reason}. Give its ssl-lab prepare command once more, "
            "which writes it again."
        )
