"""The reference text bundled with Python: English prose that needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pydoc_data.topics import topics

import numpy as np

from ssl_lab.data.splits import UNLABELLED, Part, plan_splits
from ssl_lab.data.text.base import TextModule, TextSource

MAX_REPEATED = 0.5
NUM_LENGTH_CLASSES = 5  # the longest topic is a sixth of the text: cuts blind to length leave splits of 2 % or 25 %


@dataclass(kw_only=True, eq=False, repr=False)
class PythonDocs(TextModule):
    """The topics of Python's ``help()``: about 60 documents, 370 kB of English, unlabelled.

    A topic lies wholly in one split, topics that repeat another are left out, and each split has short and long ones.
    The text is that of the Python version which runs.

    """

    vocab_size: int = 4096

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
