"""Questions whose answers are spans of a text, in SQuAD's format."""

from __future__ import annotations

import json
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.base import GIVEN, Sample
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import Source, suffix, title_of
from ssl_lab.data.files.sources import files_by_split
from ssl_lab.data.files.text_files import read_text
from ssl_lab.data.splits import UNLABELLED, Part
from ssl_lab.data.text.base import CHUNK, TextModule, TextSource

CONTEXT = 1  # number of the context among the two sequences that a tokenizer joins


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a text.

    Attributes:
        id: Its identifier in the file.
        text: The question.
        context: The text that holds the answer.
        answers: Accepted answers; several people may have given different ones.
        answer_start: Character at which the first of them begins.
    """

    id: str
    text: str
    context: str
    answers: tuple[str, ...]
    answer_start: int

    @property
    def answer_is_at_its_place(self) -> bool:
        """Return whether the text holds the first answer where the file says."""
        return self.answer_start >= 0 and self.context.startswith(self.answers[0], self.answer_start)


@dataclass(kw_only=True, eq=False, repr=False)
class QuestionAnswering(TextModule):
    """Questions with a text each, as windows of tokens in which the answer is a span; SQuAD v1.1's json files.

    A row is a question and a window of its text; windows overlap by ``doc_stride`` tokens, so that an answer that one cuts
    is whole in another. Batches hold ``token_type_ids`` (0 question, 1 text), ``context_mask`` (1 where an answer may be) and
    the ``start_position`` and ``end_position`` of the answer, both inclusive and 0 where the window does not hold it.
    Splits that the source lacks are cut by article, so that no text is in two of them.

    Args:
        path: SQuAD json file, gzipped or not; a folder of such files, named by split
            or not; or files or folders for each split.
        doc_stride: Tokens that neighbouring windows share.
        max_length: Tokens of a row: question, window and special tokens.
        max_question_length: Tokens of a question; longer ones are cut.

    Raises:
        ValueError: If question and stride leave no room for the text.

    References:
        Rajpurkar et al., SQuAD (2016). arXiv:1606.05250
    """

    path: Source = field(kw_only=False)
    doc_stride: int = 64
    max_length: int = 256
    max_question_length: int = 64
    batch_size: int = 32
    eval_batch_size: int = 128
    framing: str = field(default="encoder", init=False)
    packing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        room = self.max_length - self.max_question_length - 4  # special tokens: at most four
        if not 0 <= self.doc_stride < room:
            raise ValueError(
                f"Rows of {self.max_length} tokens with questions of up to {self.max_question_length} leave {room} for the "
                f"text, but doc_stride={self.doc_stride} of them repeat. Raise data.max_length, or lower data.doc_stride."
            )
        self._offsets: dict[str, Tensor] = {}
        self._question_of_row: dict[str, Tensor] = {}
        self._given_questions: list[Question] = []

    @property
    def fields(self) -> Mapping[str, str]:
        """The question, and the text that may hold its answer."""
        return {"question": "question", "text": "context"}

    def samples_in(self, file: Path, fields: Mapping[str, str]) -> list[Sample]:
        """A question and a text in each row of a table, or the questions of a SQuAD file, with answers or without."""
        if suffix(file.name) != ".json" or (articles := _articles_in(file)) is None:
            return super().samples_in(file, fields)
        return [
            {"question": asked["question"].strip(), "text": paragraph["context"]}
            for article in articles
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]

    def _columns_given(self, samples: Sequence[Sample]) -> Columns:
        if "question" not in samples[0]:  # for features
            return super()._columns_given(samples)
        self._given_questions = [
            Question(id=str(k), text=sample["question"], context=sample["text"], answers=(), answer_start=-1)
            for k, sample in enumerate(samples)
        ]
        self._by_row.pop(GIVEN, None)
        return self._windows(GIVEN, self._given_questions)

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    def questions(self, split: str) -> list[Question]:
        """Questions of a split in their order; given ones have no answers."""
        if split == GIVEN:
            return self._given_questions
        part = self._parts[split]
        return [question for row in part.rows for question in self._articles[part.source][row]]

    def question_of_row(self, split: str) -> Tensor:
        """The number of each row's question within the split, int64 (N,)."""
        self._prepare(split)
        return self._question_of_row[split]

    def text_of(self, split: str, row: int, start: int, end: int) -> str:
        """The characters of the text from token ``start`` to token ``end`` of a row, both inclusive."""
        self._prepare(split)
        context = self.questions_by_row(split)[row].context
        return context[int(self._offsets[split][row, start, 0]) : int(self._offsets[split][row, end, 1])]

    def _prepare(self, split: str) -> None:
        if split != GIVEN:  # whose facts are there with its columns
            self.columns(split)

    def questions_by_row(self, split: str) -> Sequence[Question]:
        """The question of each row."""
        if split not in self._by_row:
            questions = self.questions(split)
            self._by_row[split] = [questions[k] for k in self.question_of_row(split).tolist()]
        return self._by_row[split]

    @cached_property
    def _by_row(self) -> dict[str, list[Question]]:
        return {}

    @cached_property
    def _articles(self) -> dict[str, list[list[Question]]]:
        articles = {
            split: [article for file in files for article in read_squad(file)]
            for split, files in files_by_split(self.path, (".json",)).items()
        }
        for split, found in articles.items():
            questions = [question for article in found for question in article]
            if again := len(questions) - len({question.id for question in questions}):
                warnings.warn(
                    f"{again} of {len(questions)} questions of {split} have the id of another; all are used.",
                    stacklevel=2,
                )
            if astray := [question.id for question in questions if not question.answer_is_at_its_place]:
                raise ValueError(
                    f"The answers of {len(astray)} of {len(questions)} questions of {split}, such as {astray[0]}, are not at "
                    "their answer_start. It counts the characters (not the bytes) of the context from 0. Correct the files."
                )
        return articles

    def _source(self) -> TextSource:
        def read(split: str, rows: NDArray[np.int64]) -> list[str | None]:
            texts: dict[str, None] = {}
            for row in rows:
                for question in self._articles[split][row]:
                    texts |= {question.context: None, question.text: None}
            return list(texts)

        labels = {split: np.full(len(articles), UNLABELLED) for split, articles in self._articles.items()}
        return TextSource(labels=labels, read=read)

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        return self._windows(split, [question for row in part.rows for question in self._articles[part.source][row]])

    def _windows(self, split: str, questions: Sequence[Question]) -> dict[str, Tensor]:
        """Columns of the windows of all questions; where their tokens lie in the texts is kept for the split."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("input_ids", "token_type_ids", "context_mask", "start_position", "end_position")
        }
        offsets, numbers = [], []
        for first in range(0, len(questions), CHUNK):
            chunk = questions[first : first + CHUNK]
            encoded = self.tokenizer(
                self._short([question.text for question in chunk]),
                [question.context for question in chunk],
                truncation="only_second",
                max_length=self.max_length,
                stride=self.doc_stride,
                padding="max_length",
                padding_side="right",
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            for k, number in enumerate(encoded["overflow_to_sample_mapping"]):
                inside = np.array([s == CONTEXT for s in encoded.sequence_ids(k)])
                spans = np.array(encoded["offset_mapping"][k], dtype=np.int32)
                spans[~inside] = 0
                start, end = token_span(chunk[number], spans, inside)
                columns["input_ids"].append(encoded["input_ids"][k])
                columns["token_type_ids"].append(encoded[k].type_ids)
                columns["context_mask"].append(inside)
                columns["start_position"].append(start)
                columns["end_position"].append(end)
                offsets.append(spans)
                numbers.append(first + number)
        self._offsets[split] = torch.from_numpy(np.stack(offsets))
        self._question_of_row[split] = torch.tensor(numbers)
        kinds = {"input_ids": torch.int32, "token_type_ids": torch.int8, "context_mask": torch.bool}
        return {
            name: torch.from_numpy(np.array(column)).to(kinds.get(name, torch.int64))
            for name, column in columns.items()
        }

    def _short(self, texts: Sequence[str]) -> list[str]:
        """Questions cut after ``max_question_length`` tokens."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [
            text if len(spans) <= self.max_question_length else text[: spans[self.max_question_length - 1][1]]
            for text, spans in zip(texts, encoded["offset_mapping"], strict=True)
        ]

    def as_batch(self, rows: dict[str, Tensor]) -> Any:
        """Ids, masks and token types as int64."""
        if "token_type_ids" not in rows:  # given without a question
            return super().as_batch(rows)
        return {**super().as_batch(rows), "token_type_ids": rows["token_type_ids"].long()}


def token_span(question: Question, spans: NDArray[np.int32], inside: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last token of the answer in a window; (0, 0) if the window does not hold all of it.

    Args:
        question: The question with its answer.
        spans: First and last but one character of each token (L, 2).
        inside: Which tokens are part of the text (L,).
    """
    if not question.answers:
        return 0, 0
    begin, stop = question.answer_start, question.answer_start + len(question.answers[0])
    tokens = np.flatnonzero(inside & (spans[:, 1] > begin) & (spans[:, 0] < stop))
    if not len(tokens) or spans[tokens[0], 0] > begin or spans[tokens[-1], 1] < stop:
        return 0, 0
    return int(tokens[0]), int(tokens[-1])


def _articles_in(file: Path) -> list[Any] | None:
    """The articles of a SQuAD file, whether it has answers or not; None of a file of another form."""
    try:
        found = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError):
        return None
    try:
        articles = found["data"]
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            [asked["question"].strip() + paragraph["context"] for asked in paragraph["qas"]]
    except (LookupError, TypeError, AttributeError):
        return None
    return list(articles)


def read_squad(file: Path) -> list[list[Question]]:
    """Questions of each article of a SQuAD json file.

    Raises:
        ValueError: If it is none, or has questions without an answer, as SQuAD v2.
    """
    try:
        articles = json.loads(read_text(file))["data"]
        found = [
            [
                Question(
                    id=str(asked["id"]),
                    text=asked["question"].strip(),
                    context=paragraph["context"],
                    answers=tuple(answer["text"] for answer in asked["answers"]),
                    answer_start=operator.index(asked["answers"][0]["answer_start"]) if asked["answers"] else -1,
                )
                for paragraph in article["paragraphs"]
                for asked in paragraph["qas"]
            ]
            for article in articles
        ]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not a SQuAD file: {type(error).__name__} {error}. It should hold data, paragraphs, "
            "qas and answers as SQuAD v1.1 does."
        ) from error
    without = [question.id for article in found for question in article if not any(question.answers)]
    if without:
        raise ValueError(
            f"{file} has {len(without)} questions without an answer, such as {without[0]}, but SQuAD v1.1 "
            "has one for each. Leave these questions out."
        )
    return [article for article in found if article]
