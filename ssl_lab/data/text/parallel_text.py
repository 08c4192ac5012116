"""Texts and their translations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import Sample
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import NoUsableFilesError, Source, places, suffix, take_inventory, title_of
from ssl_lab.data.files.tables import check_text_column
from ssl_lab.data.files.text_files import read_lines
from ssl_lab.data.hub import load_splits
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.splits import UNLABELLED, Part
from ssl_lab.data.text.base import TextModule, TextSource
from ssl_lab.data.text.ids import token_ids
from ssl_lab.data.text.tokenizer import load_tokenizer, train_tokenizer
from ssl_lab.modalities.text import TextSpec, WrittenText
from ssl_lab.types import Spec


@dataclass(kw_only=True, eq=False, repr=False)
class _Translated(TextModule):
    """The setting whose name is that of a property of the class below."""

    if not TYPE_CHECKING:
        target_tokenizer: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class ParallelText(_Translated):
    """Texts and their translations, from parallel files of lines or from tables with two columns.

    The source is read by ``tokenizer`` as any text. Translations have a tokenizer of their own, so that a pretrained
    encoder keeps the vocabulary it knows: byte-level BPE, which gives back every character, trained on the translations
    of the ``train`` split. Batches hold ``target_input_ids`` and ``target_attention_mask`` (B, T): begin token, text, end
    token.

    Args:
        path: Beginnings of the names of parallel files for each split, ``{train: raw/train, test: raw/test}`` for
            raw/train.en and raw/train.de, gzipped or not; a folder of such files whose names say their split; a table
            or folder of tables (csv, tsv, json, jsonl, parquet); or an identifier on the hub.
        source: Ending of the files to translate, or column of the texts to translate.
        target: Ending or column of the translations.
        name: Name of the configuration, for a data set of the hub that has several.
        options: Further arguments of ``datasets.load_dataset`` for tables, such as ``quoting`` for csv.
        target_tokenizer: Folder or hub identifier of the tokenizer of the translations, which may be the source's; None
            to train one.
        target_vocab_size: Number of its ids if it is trained.
        target_max_length: Tokens of a translation, begin and end included.

    Raises:
        ValueError: If ``target_max_length`` leaves no ids for a token.
    """

    path: Source = field(kw_only=False)
    source: str = field(kw_only=False)
    target: str = field(kw_only=False)
    name: str | None = None
    options: Mapping[str, Any] | None = None
    target_vocab_size: int = 8192
    target_max_length: int = 64
    max_length: int = 64
    eval_batch_size: int = 128
    framing: str = field(default="encoder", init=False)
    packing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.target_tokenizer_name: str | None = vars(self).pop("target_tokenizer")
        if self.target_max_length < 3:
            raise ValueError(
                f"target_max_length counts the begin and end token too, found {self.target_max_length}. Choose 3 or more."
            )

    @property
    def fields(self) -> Mapping[str, str]:
        """The text to translate."""
        return {"text": self.source}

    def _columns_given(self, samples: Sequence[Sample]) -> Columns:
        texts = [sample["text"] for sample in samples]
        return {"input_ids": token_ids(self.tokenizer, texts, max_length=self.max_length)}

    @property
    def title(self) -> str:
        """The last part of the path, or the folder of named files, and both languages."""
        return f"{title_of(self.path)} {self.source}-{self.target}"

    @cached_property
    def target_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the translations; the first reading trains it where it is ours.

        Raises:
            ValueError: If a loaded one has no tokens for begin and end.
        """
        if self.target_tokenizer_name is None:
            return train_tokenizer("bpe", lambda: [self.references("train")], vocab_size=self.target_vocab_size)
        tokenizer = load_tokenizer(self.target_tokenizer_name)
        if None in _ends(tokenizer):
            raise ValueError(
                f"The tokenizer {self.target_tokenizer_name!r} has no token to begin or to end a text with. Choose "
                "another, or null to train one."
            )
        return tokenizer

    def tokenizers(self) -> Mapping[str, PreTrainedTokenizerFast]:
        """Return the tokenizers of both sides."""
        return {**super().tokenizers(), "target_tokenizer": self.target_tokenizer}

    @classmethod
    def settings_in_run(cls, run_dir: Path, spec: Spec, own: Mapping[str, Any] | None) -> dict[str, Any]:
        """The run's tokenizers, length and framing."""
        folder = run_dir / "target_tokenizer"
        target = {"target_tokenizer": str(folder)} if folder.is_dir() else {}
        return {**super().settings_in_run(run_dir, spec, own), **target}

    def references(self, split: str) -> list[str]:
        """The translations of a split as they are in the files."""
        part = self._parts[split]
        return [self._pairs[part.source][row][1] for row in part.rows]

    @cached_property
    def spec(self) -> TextSpec:
        """Facts of the data; the first reading trains or loads both tokenizers."""
        begin, end = _ends(self.target_tokenizer)
        return replace(
            super().spec,
            targets={
                "target_input_ids": WrittenText(
                    length=self.target_max_length,
                    vocab_size=len(self.target_tokenizer),
                    pad_id=self.target_tokenizer.pad_token_id,
                    begin_id=begin,
                    end_id=end,
                )
            },
        )

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[str, str]]]:
        stems = self._stems()
        if stems:
            found = {
                split: [pair for stem in each for pair in _read_lines(stem, self.source, self.target)]
                for split, each in stems.items()
            }
        else:
            splits = load_splits(self.path, name=self.name, options=self.options, words=(self.source, self.target))
            found = {split: self._of_table(rows) for split, rows in splits.items()}
        pairs = {split: [pair for pair in both if all(map(str.strip, pair))] for split, both in found.items()}
        for split, both in found.items():
            if left_out := len(both) - len(pairs[split]):
                warnings.warn(
                    f"{left_out} of {len(both)} pairs of {split} are left out: {self.source} or {self.target} is blank.",
                    stacklevel=2,
                )
        return pairs

    def _of_table(self, rows: datasets.Dataset) -> list[tuple[str, str]]:
        if "translation" in rows.column_names:  # as in the hub's translation data: a text for each language
            texts = rows["translation"]
            if missing := [language for language in (self.source, self.target) if language not in (texts[0] or {})]:
                raise ValueError(
                    f"The translations are in {', '.join(texts[0] or {})}, not in {', '.join(missing)}. Set data.source and "
                    "data.target."
                )
            return [((row or {}).get(self.source) or "", (row or {}).get(self.target) or "") for row in texts]
        check_text_column({"the table": rows}, self.source, setting="source")
        check_text_column({"the table": rows}, self.target, setting="target")
        columns = [[text or "" for text in rows[column]] for column in (self.source, self.target)]
        return list(zip(*columns, strict=True))

    def _stems(self) -> dict[str, list[Path]]:
        """Names of parallel files without the language, by split; empty if there are none."""
        named = [Path(place).expanduser() for place in places(self.path)]
        tables = [place for place in named if place.is_file() and self._language(place.name) is None]
        if tables or (isinstance(self.path, str) and not named[0].exists()):
            return {}
        source: Source = self.path
        if not isinstance(source, str):
            source = {
                key: [str(f) for place in places(value) for f in self._files(place)] for key, value in source.items()
            }
        languages = (self.source, self.target)
        try:
            inventory = take_inventory(source, languages, ending=lambda name: self._language(name) or suffix(name))
        except NoUsableFilesError:
            return {}
        inventory.tell(self.title)
        stems = {split: [self._stem(file) for file in files] for split, files in inventory.paths.items()}
        return {split: list(dict.fromkeys(found)) for split, found in stems.items()}

    def _language(self, name: str) -> str | None:
        """The language that a file name ends with, if it is one of the two."""
        name = name.removesuffix(".gz")
        return next((language for language in (self.source, self.target) if name.endswith(f".{language}")), None)

    def _stem(self, file: Path) -> Path:
        return file.with_name(file.name.removesuffix(".gz").removesuffix(f".{self._language(file.name)}"))

    def _files(self, place: str) -> list[Path]:
        """List the files at a place, or the parallel files whose names begin so."""
        found = Path(place).expanduser()
        if found.exists():
            return [found]
        names = [f"{found.name}.{language}{gz}" for language in (self.source, self.target) for gz in ("", ".gz")]
        files = [found.with_name(name) for name in names if found.with_name(name).is_file()]
        return files or [found.with_name(names[0])]

    def _source(self) -> TextSource:
        def read(split: str, rows: NDArray[np.int64]) -> list[str | None]:
            return [self._pairs[split][row][0] for row in rows]

        return TextSource(labels={s: np.full(len(rows), UNLABELLED) for s, rows in self._pairs.items()}, read=read)

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        sources, targets = zip(*(self._pairs[part.source][row] for row in part.rows), strict=True)
        tokenizer = self.target_tokenizer
        begin, end = _ends(tokenizer)
        target_ids = torch.full((len(targets), self.target_max_length), tokenizer.pad_token_id, dtype=torch.int32)
        encoded = tokenizer(list(targets), add_special_tokens=False)["input_ids"]
        for row, ids in zip(target_ids, encoded, strict=True):
            whole = torch.tensor([begin, *ids[: self.target_max_length - 2], end])
            row[: len(whole)] = whole
        return {
            "input_ids": token_ids(self.tokenizer, list(sources), max_length=self.max_length),
            "target_input_ids": target_ids,
        }

    def as_batch(self, rows: dict[str, Tensor]) -> Any:
        """Ids as int64 and their attention masks, each with the padding of its tokenizer."""
        if "target_input_ids" not in rows:  # given to be translated
            return super().as_batch(rows)
        target = rows["target_input_ids"].long()
        pad, (_, end) = self.target_tokenizer.pad_token_id, _ends(self.target_tokenizer)
        if pad == end:  # as in GPT-2: the first one after the begin token is the end
            ended = (target[:, 1:] == end).long()
            mask = F.pad((ended.cumsum(1) - ended == 0).long(), (1, 0), value=1)
        else:
            mask = (target != pad).long()
        return {**super().as_batch(rows), "target_input_ids": target, "target_attention_mask": mask}


def _ends(tokenizer: PreTrainedTokenizerFast) -> tuple[int, int]:
    """Ids that begin and end a text; BERT's class and separator token serve too."""
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    return begin, tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id


def _read_lines(stem: Path, source: str, target: str) -> list[tuple[str, str]]:
    """Lines of two parallel files.

    Raises:
        FileNotFoundError: If one of them is missing.
        ValueError: If they differ in length.
    """
    sides = []
    for language in (source, target):
        plain = stem.with_name(f"{stem.name}.{language}")
        file = next((file for file in (plain, plain.with_name(f"{plain.name}.gz")) if file.is_file()), None)
        if file is None:
            raise FileNotFoundError(
                f"Neither {plain} nor {plain.name}.gz is there. data.path is the name without its ending, data.source and "
                "data.target are the endings."
            )
        sides.append([line.strip() for line in read_lines(file)])
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{stem}.{source} has {len(sides[0])} lines but {stem}.{target} {len(sides[1])}. Line n of one must be the "
            "translation of line n of the other."
        )
    return list(zip(*sides, strict=True))
