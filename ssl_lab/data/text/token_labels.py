"""Sentences with a tag for every word: named entities, chunks, parts of speech."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import GIVEN, Sample
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import Source, suffix, title_of
from ssl_lab.data.files.sources import files_by_split, is_local
from ssl_lab.data.files.text_files import read_lines
from ssl_lab.data.splits import UNLABELLED, Part
from ssl_lab.data.text.base import TextModule, TextSource
from ssl_lab.data.text.tag_schemes import to_iob2
from ssl_lab.data.text.token_rows import frame_of

COLUMN_FILES = (".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", ".tsv")
TABLES = (".json", ".jsonl", ".parquet")
DOCUMENT, CONLLU_COLUMNS = "-DOCSTART-", 10
_NO_WORD = re.compile(r"\d+-\d+|\d+\.\d+")  # first column of a range of contracted words, and of an empty node
NO_WORD, UNKNOWN_TAG = -100, -1  # of tokens that begin no word, and of words whose tag the train split lacks

Sentence: TypeAlias = tuple[list[str], list[str]]
"""Words and their tags."""


@dataclass(kw_only=True, eq=False, repr=False)
class TokenLabels(TextModule):
    """Sentences of words that carry a tag each, from column files or from tables with lists.

    A word of several tokens is labelled at its first one. A sentence longer than ``max_length`` is cut between words into
    several rows, so that every word is in exactly one of them. Batches hold ``token_labels`` (B, L): the number of the tag
    at the first token of each word, -1 where the train split lacks the tag, -100 everywhere else. Tags of spans in another
    scheme (IOB1, BIOES, BILOU, ...) are read as IOB2.

    Args:
        path: Column files (a word and its tags a line, separated by blanks or tabs; an empty line between sentences;
            -DOCSTART- lines are left out; of CoNLL-U files also comments, ranges of contracted words such as 2-3, and
            empty nodes such as 4.1), gzipped or not, or
            json, jsonl or parquet files with a list of words and one of tags in each row: a file, a folder of files whose
            names say their split (train, val or valid or dev, test), or a file for each split; or an identifier on the
            hub.
        name: Name of the configuration, for a data set of the hub that has several.
        word_position: Column of the word in column files, from 0; None for 0, in CoNLL-U files 1 (FORM).
        tag_position: Column of the tag in column files, -1 is the last; None for -1, in CoNLL-U files 3 (UPOS).
        words_column: Column of the lists of words in tables.
        tags_column: Column of the lists of tags in tables.
    """

    path: Source = field(kw_only=False)
    name: str | None = None
    word_position: int | None = None
    tag_position: int | None = None
    words_column: str = "tokens"
    tags_column: str = "tags"
    batch_size: int = 32
    framing: str = field(default="encoder", init=False)
    packing: bool = field(default=False, init=False)

    class_column = "token_labels"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._given_sentences: list[Sentence] = []

    @property
    def fields(self) -> Mapping[str, str]:
        """The sentence: words between white space, or a list of words."""
        return {"text": self.words_column}

    @property
    def given_endings(self) -> tuple[str, ...]:
        """Return the endings of plain text, tables and column files."""
        return tuple(dict.fromkeys((*super().given_endings, *COLUMN_FILES)))

    def samples_in(self, file: Path, fields: Mapping[str, str]) -> list[Sample]:
        """A sentence a line of plain text or a row of a table; of column files the words, whatever their tags are."""
        if suffix(file.name) in COLUMN_FILES and suffix(file.name) != ".txt":
            sentences = read_columns(file, word=self.word_position, tag=self.tag_position)
            return [{"text": words} for words, _ in sentences]
        return super().samples_in(file, fields)

    def _columns_given(self, samples: Sequence[Sample]) -> Columns:
        sentences = [words.split() if isinstance(words := sample["text"], str) else list(words) for sample in samples]
        self._given_sentences = [(words, [""] * len(words)) for words in sentences]
        return self._rows_of(self._given_sentences, {})

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    def sentences(self, split: str) -> list[Sentence]:
        """Words and tags of a split, whole sentences in their order; given ones have empty tags."""
        if split == GIVEN:
            return self._given_sentences
        part = self._parts[split]
        return [self._sentences[part.source][row] for row in part.rows]

    @cached_property
    def _sentences(self) -> dict[str, list[Sentence]]:
        files = self._column_files()
        found = self._of_column_files(files) if files else self._of_tables()
        tags = iter(to_iob2([tags for sentences in found.values() for _, tags in sentences]))
        return {split: [(words, next(tags)) for words, _ in sentences] for split, sentences in found.items()}

    def _of_column_files(self, files: Mapping[str, list[Path]]) -> dict[str, list[Sentence]]:
        return {
            split: [
                sentence
                for file in each
                for sentence in read_columns(file, word=self.word_position, tag=self.tag_position)
            ]
            for split, each in files.items()
        }

    def _of_tables(self) -> dict[str, list[Sentence]]:
        from ssl_lab.data.files.tables import check_column
        from ssl_lab.data.hub import load_splits
        from ssl_lab.data.hugging_face import datasets

        splits = load_splits(self.path, name=self.name, words=(self.words_column, self.tags_column))
        for setting in ("words_column", "tags_column"):
            check_column(splits["train"], column := getattr(self, setting), setting=setting)
            if not isinstance(feature := splits["train"].features[column], datasets.List):
                raise ValueError(f"{setting}={column!r} holds {feature}, but needs a list a row. Set data.{setting}.")
        names = getattr(splits["train"].features[self.tags_column].feature, "names", None)
        found: dict[str, list[Sentence]] = {}
        for split, rows in splits.items():
            found[split] = []
            for number, (words, tags) in enumerate(zip(rows[self.words_column], rows[self.tags_column], strict=True)):
                _check_row(words, tags, place=f"Row {number} of {split}")
                if words:
                    found[split].append((words, [names[tag] if names else str(tag) for tag in tags]))
        if names is None and all(tag.isdigit() for _, tags in found["train"] for tag in tags):
            warnings.warn(
                f"The tags in {self.tags_column!r} are numbers without names: only the accuracy of tags can be scored. Give "
                "their names, such as B-PER, to score spans.",
                stacklevel=2,
            )
        return found

    def _column_files(self) -> dict[str, list[Path]]:
        """Column files by split; empty if there are tables, or the path is a name on the hub."""
        if isinstance(self.path, str) and not is_local(self.path):
            return {}
        files = files_by_split(self.path, (*COLUMN_FILES, *TABLES))
        endings = {suffix(file.name) for split_files in files.values() for file in split_files}
        if endings & set(COLUMN_FILES) and endings & set(TABLES):
            raise ValueError(
                f"The files of a data set must be of one kind, found {sorted(endings)} in {self.path}. Name the files of one "
                "kind: data.path={train: ..., test: ...}."
            )
        return files if endings <= set(COLUMN_FILES) else {}

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
        return self._rows_of([self._sentences[part.source][row] for row in part.rows], number)

    def _rows_of(self, sentences: Sequence[Sentence], number: Mapping[str, int]) -> dict[str, Tensor]:
        """Columns of sentences, cut between words, with the numbers of their tags."""
        around = frame_of(self.tokenizer, "encoder")
        prefix, suffix_ids = list(around.before), list(around.after)
        room = self.max_length - len(prefix) - len(suffix_ids)
        rows, labels = [], []
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


def _check_row(words: Sequence[str | None] | None, tags: Sequence[Any] | None, *, place: str) -> None:
    """Raise ValueError unless a row has a tag for every word."""
    if words is None or tags is None or len(words) != len(tags):
        raise ValueError(
            f"{place} has {len(words or ())} words but {len(tags or ())} tags. Correct the data, or set data.words_column "
            "and data.tags_column."
        )
    for word, tag in zip(words, tags, strict=True):
        if word is None or tag in (None, "") or (isinstance(tag, int) and tag < 0):
            raise ValueError(f"{place} has the word {word!r} with the tag {tag!r}. Give every word a tag.")


def read_columns(file: Path, *, word: int | None = None, tag: int | None = None) -> list[Sentence]:
    """Sentences of a column file.

    Columns are separated by tabs if every line has one, else by blanks. A file is CoNLL-U by its name (.conllu), or if
    its first line has ten columns of which the first is a number.

    Args:
        file: The file, gzipped or not.
        word: Column of the word; None for the first, in CoNLL-U the second.
        tag: Column of the tag; None for the last, in CoNLL-U the fourth (UPOS).

    Raises:
        ValueError: Naming file and line, if a line has other columns than the first, or a word no tag.
    """
    lines = read_lines(file)
    filled = [line for line in lines if line.strip()]
    has_tabs = all("\t" in line for line in filled if not line.startswith(("#", DOCUMENT)))
    split = _by_tab if has_tabs else _by_blanks
    first = next((split(line) for line in filled if not line.startswith(("#", DOCUMENT))), [])
    is_conllu = suffix(file.name) == ".conllu" or (len(first) == CONLLU_COLUMNS and first[0].isdecimal())
    ten_columns = len(first) == CONLLU_COLUMNS
    if word is None:
        word = 1 if is_conllu and ten_columns else 0
    if tag is None:
        tag = 3 if is_conllu and ten_columns else -1
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    num_columns = None
    for number, line in enumerate([*lines, ""], start=1):
        columns = split(line)
        if not any(columns):
            if words:
                sentences.append((words, tags))
            words, tags = [], []
        elif not words and (columns[0] == DOCUMENT or (is_conllu and line.startswith("#"))):
            continue
        elif is_conllu and _NO_WORD.fullmatch(columns[0]):
            continue
        else:
            num_columns = num_columns or len(columns)
            if (
                len(columns) != num_columns
                or num_columns < 2
                or not all(-num_columns <= k < num_columns for k in (word, tag))
            ):
                raise ValueError(
                    f"Line {number} of {file} has {len(columns)} columns ({line.strip()[:40]!r}), the first word has "
                    f"{num_columns}; words come from column {word} and tags from {tag}. Correct the file, or set "
                    "data.word_position and data.tag_position."
                )
            _check_row([columns[word] or None], [columns[tag]], place=f"Line {number} of {file}")
            words.append(columns[word])
            tags.append(columns[tag])
    return sentences


def _by_tab(line: str) -> list[str]:
    return [column.strip() for column in line.split("\t")]


def _by_blanks(line: str) -> list[str]:
    return [column for column in re.split("[ \t]+", line.strip()) if column]


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
