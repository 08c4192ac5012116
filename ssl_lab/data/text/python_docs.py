"""The reference text bundled with Python: English prose that needs no download."""

from __future__ import annotations

from functools import cached_property
from pydoc_data.topics import topics

import numpy as np

from ssl_lab.data.splits import UNLABELLED, Part, plan_splits
from ssl_lab.data.text.base import TextModule, TextSource

MAX_REPEATED = 0.5
NUM_LENGTH_CLASSES = 5  # the longest topic is a sixth of the text: cuts blind to length leave splits of 2 % or 25 %


class PythonDocs(TextModule):
    """The topics of Python's ``help()``: about 60 documents, 370 kB of English, unlabelled.

    A topic lies wholly in one split, topics that repeat another are left out, and each split has short and long ones.
    The text is that of the Python version which runs.

    Args:
        tokenizer: Folder or hub identifier of a tokenizer; None to train one on the ``train`` split.
        tokenizer_kind: What is trained: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Number of ids of a tokenizer that is trained.
        max_length: Tokens of a sample, special tokens included.
        framing: ``encoder``: class and separator tokens around each piece of text. ``causal``: an end-of-text token after
            each document.
        packing: Put pieces of several unlabelled documents into a row.
        val_fraction: Share of the topics, without those of ``test``, that is ``val``.
        test_fraction: Share of the topics that is ``test``.
        split_seed: Seed of both cuts.
        batch_size: Samples per device and training step.
        eval_batch_size: Samples per batch in evaluation.
        seed: Seed of the order of training samples.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.
    """

    def __init__(
        self,
        *,
        tokenizer: str | None = None,
        tokenizer_kind: str = "wordpiece",
        vocab_size: int = 4096,
        max_length: int = 128,
        framing: str = "encoder",
        packing: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        seed: int = 0,
        device_cache_gib: float = 4.0,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            tokenizer_kind=tokenizer_kind,
            vocab_size=vocab_size,
            max_length=max_length,
            framing=framing,
            packing=packing,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            device_cache_gib=device_cache_gib,
        )

    @cached_property
    def _parts(self) -> dict[str, Part]:
        lengths = np.array([len(text) for text in distinct_topics().values()])
        ranks = np.argsort(np.argsort(lengths, kind="stable"), kind="stable")
        return plan_splits(
            {"train": ranks * NUM_LENGTH_CLASSES // len(ranks)},
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
        )

    def _source(self) -> TextSource:
        texts = list(distinct_topics().values())
        return TextSource(
            labels={"train": np.full(len(texts), UNLABELLED)}, read=lambda _, rows: [texts[row] for row in rows]
        )


def distinct_topics() -> dict[str, str]:
    """Topics by name, without those that mostly repeat longer ones.

    ``try``, ``with`` and ``for`` are sections of ``compound``, and a dozen others are of ``specialnames``: were they
    kept, most of the validation text could be found in the training text.
    """
    kept: dict[str, str] = {}
    seen: set[str] = set()
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs = [" ".join(paragraph.split()) for paragraph in topics[name].split("\n\n")]
        num_repeated = sum(len(paragraph) for paragraph in paragraphs if paragraph in seen)
        if num_repeated <= MAX_REPEATED * sum(map(len, paragraphs)):
            kept[name] = topics[name]
            seen.update(paragraphs)
    return dict(sorted(kept.items()))
