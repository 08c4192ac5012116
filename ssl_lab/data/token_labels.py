"""Sentences with a tag for every word: named entities, chunks, parts of speech."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.hub import check_column, files_by_split, load_splits, suffix, title_of
from ssl_lab.data.splits import UNLABELLED, Part
from ssl_lab.data.text import TextModule, TextSource
from ssl_lab.data.token_rows import frame_of

COLUMN_FILES = (".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", ".tsv")
NO_WORD, UNKNOWN_TAG = -100, -1  # of tokens that begin no word, and of words whose tag the train split lacks

Sentence: TypeAlias = tuple[list[str], list[str]]
"""Words and their tags."""


class TokenLabels(TextModule):
    """Sentences of words that carry a tag each, from column files or from tables with lists.

    A word of several tokens is labelled at its first one. A sentence longer than ``max_length`` is cut between words into
    several rows, so that every word is in exactly one of them. Batches hold ``token_labels`` (B, L): the number of the tag
    at the first token of each word, -1 where the train split lacks the tag, -100 everywhere else.

    Args:
        path: Column files (a word and its tags a line, separated by blanks or tabs; an empty line between sentences;
            -DOCSTART- and, in .conllu files, lines beginning with # before a sentence are left out), gzipped or not, or
            json, jsonl or parquet files with a list of words and one of tags in each row: a file, a folder of files whose
            names say their split (train, val or valid or dev, test), or a file for each split; or an identifier on the
            hub.
        name: Configuration of a data set with several.
        word_position: Column of the word in column files, from 0.
        tag_position: Column of the tag in column files; -1 is the last.
        words_column: Column of the lists of words in tables.
        tags_column: Column of the lists of tags in tables.
        tokenizer: Folder or hub identifier of a tokenizer; None to train one on the ``train`` split.
        tokenizer_kind: What is trained: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Number of ids of a tokenizer that is trained.
        max_length: Tokens of a row, special tokens included.
        val_fraction: Share of the training sentences held out as ``val`` where the source has none; 0 for none.
        test_fraction: The same for ``test``.
        split_seed: Seed of both cuts.
        batch_size: Rows per device and training step.
        eval_batch_size: Rows per batch in evaluation.
        seed: Seed of the order of training rows.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.
    """

    def __init__(
        self,
        path: str | Mapping[str, str],
        *,
        name: str | None = None,
        word_position: int = 0,
        tag_position: int = -1,
        words_column: str = "tokens",
        tags_column: str = "tags",
        tokenizer: str | None = None,
        tokenizer_kind: str = "wordpiece",
        vocab_size: int = 8192,
        max_length: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        seed: int = 0,
        device_cache_gib: float = 4.0,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            tokenizer_kind=tokenizer_kind,
            vocab_size=vocab_size,
            max_length=max_length,
            framing="encoder",
            packing=False,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            device_cache_gib=device_cache_gib,
        )
        self.path = path
        self.config_name = name
        self.word_position = word_position
        self.tag_position = tag_position
        self.words_column = words_column
        self.tags_column = tags_column

    @property
    def title(self) -> str:
        """The last part of the path; for a file for each split, the folder of the first."""
        return title_of(self.path)

    def sentences(self, split: str) -> list[Sentence]:
        """Words and tags of a split, whole sentences in their order."""
        part = self._parts[split]
        return [self._sentences[part.source][row] for row in part.rows]

    @cached_property
    def _sentences(self) -> dict[str, list[Sentence]]:
        if self._is_column_files():
            return {
                split: [
                    sentence
                    for file in files
                    for sentence in read_columns(file, word=self.word_position, tag=self.tag_position)
                ]
                for split, files in files_by_split(self.path, COLUMN_FILES).items()
            }
        splits = load_splits(self.path, name=self.config_name)
        check_column(splits["train"], self.words_column, setting="words_column")
        check_column(splits["train"], self.tags_column, setting="tags_column")
        found: dict[str, list[Sentence]] = {}
        for split, rows in splits.items():
            names = getattr(getattr(rows.features[self.tags_column], "feature", None), "names", None)
            tags = [[names[t] if names else str(t) for t in row] for row in rows[self.tags_column]]
            found[split] = list(zip(rows[self.words_column], tags, strict=True))
            for number, (words, row_tags) in enumerate(found[split]):
                if len(words) != len(row_tags):
                    raise ValueError(
                        f"Row {number} of {split} has {len(words)} words but {len(row_tags)} tags. Correct the data, or set "
                        "data.words_column and data.tags_column."
                    )
        return found

    def _is_column_files(self) -> bool:
        if not isinstance(self.path, str):
            return all(suffix(Path(file)) in COLUMN_FILES for file in self.path.values())
        root = Path(self.path).expanduser()
        files = root.rglob("*") if root.is_dir() else [root] if root.exists() else []
        return any(suffix(file) in COLUMN_FILES for file in files)

    def _source(self) -> TextSource:
        if "train" not in self._sentences:
            raise ValueError(
                f"A data set needs training sentences, found {sorted(self._sentences)}. Name a file train, or give "
                "data.path={train: ...}."
            )
        tags = {tag for _, sentence in self._sentences["train"] for tag in sentence}

        def read(split: str, rows: NDArray[np.int64]) -> list[str | None]:
            return [" ".join(self._sentences[split][row][0]) for row in rows]

        labels = {split: np.full(len(rows), UNLABELLED) for split, rows in self._sentences.items()}
        return TextSource(labels=labels, class_names=tuple(sorted(tags)), read=read)

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        number = {tag: k for k, tag in enumerate(self._texts.class_names)}
        around = frame_of(self.tokenizer, "encoder")
        prefix, suffix_ids = list(around.before), list(around.after)
        room = self.max_length - len(prefix) - len(suffix_ids)
        rows, labels = [], []
        sentences = [self._sentences[part.source][row] for row in part.rows]
        pieces = split_words(self.tokenizer, [words for words, _ in sentences])
        for (_, tags), words in zip(sentences, pieces, strict=True):
            for first, last in cut(list(map(len, words)), room):
                ids, row_labels = list(prefix), [NO_WORD] * len(prefix)
                for tokens, tag in zip(words[first:last], tags[first:last], strict=True):
                    tokens = tokens[:room]
                    ids += tokens
                    row_labels += [number.get(tag, UNKNOWN_TAG), *[NO_WORD] * (len(tokens) - 1)]
                rows.append(ids + suffix_ids)
                labels.append(row_labels)
        return {
            "input_ids": padded(rows, self.max_length, fill=self.tokenizer.pad_token_id).int(),
            "token_labels": padded(labels, self.max_length, fill=NO_WORD).short(),
        }

    def as_batch(self, rows: dict[str, Tensor]) -> Any:
        """Ids, masks and labels as int64."""
        return {**super().as_batch(rows), "token_labels": rows["token_labels"].long()}


def read_columns(file: Path, *, word: int, tag: int) -> list[Sentence]:
    """Sentences of a column file.

    Raises:
        ValueError: Naming file and line, if a line has too few columns.
    """
    opened = gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")
    has_comments = suffix(file) == ".conllu"  # elsewhere # is a word, as in conll2000
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    with opened as lines:
        for number, line in enumerate([*lines, ""], start=1):
            columns = line.split("\t") if "\t" in line else line.split()
            columns = [column.strip() for column in columns]
            if not any(columns):
                if words:
                    sentences.append((words, tags))
                words, tags = [], []
            elif not words and (columns[0] == "-DOCSTART-" or (has_comments and line.startswith("#"))):
                continue
            else:
                try:
                    if len(columns) < 2:
                        raise IndexError
                    words.append(columns[word])
                    tags.append(columns[tag])
                except IndexError as error:
                    raise ValueError(
                        f"Line {number} of {file} has {len(columns)} columns ({line.strip()[:40]!r}), but words come from "
                        f"column {word} and tags from {tag}. Set data.word_position and data.tag_position, or "
                        "correct the file."
                    ) from error
    return sentences


def split_words(tokenizer: PreTrainedTokenizerFast, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of every word of every sentence, as they are in running text; the unknown token for a word of none.

    Words are joined by blanks and found again by characters, so tokenizers that mark the beginning of a word by the
    blank before it see what they were trained on.
    """
    encoded = tokenizer([" ".join(words) for words in sentences], add_special_tokens=False, return_offsets_mapping=True)
    found = []
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    for words, ids, offsets in zip(sentences, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        ends = np.cumsum([len(word) + 1 for word in words])  # of each word with the blank after it
        pieces: list[list[int]] = [[] for _ in words]
        for token, (start, end) in zip(ids, offsets, strict=True):
            last = max(start, end - 1)
            pieces[min(int(np.searchsorted(ends, last, side="right")), len(words) - 1)].append(token)
        found.append([piece or [unknown] for piece in pieces])
    return found


def cut(lengths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Ranges of words, each as long as fits into ``room`` tokens; a longer word is alone in its range."""
    ranges, first, used = [], 0, 0
    for k, length in enumerate(lengths):
        if k > first and used + length > room:
            ranges.append((first, k))
            first, used = k, 0
        used += length
    if len(lengths) > first:
        ranges.append((first, len(lengths)))
    return ranges


def padded(rows: Sequence[Sequence[int]], length: int, *, fill: int) -> Tensor:
    """Rows of different lengths as one tensor (N, length)."""
    out = torch.full((len(rows), length), fill)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = torch.as_tensor(values)
    return out
