"""Spans of tagged words, and the precision, recall and F1 of those that are exactly right."""

from __future__ import annotations

from collections.abc import Sequence


def spans_of(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Spans ``(first, end, kind)`` of a sentence in IOB2, read strictly.

    ``B-NP`` begins a span, and each ``I-NP`` right after it continues it. An ``I-`` that continues no span of its own
    kind belongs to none, as in seqeval's strict mode; conlleval would begin a span there.

    Args:
        tags: ``B-...``, ``I-...`` or ``O`` for each word.

    Returns:
        Spans, ``end`` being the number of the word after the last.
    """
    found = set()
    first = 0
    kind: str | None = None
    for place, tag in enumerate((*tags, "O")):
        if kind is not None and tag != f"I-{kind}":
            found.add((first, place, kind))
            kind = None
        if tag.startswith("B-"):
            first, kind = place, tag[2:]
    return found


def span_scores(gold: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of the spans of all sentences together (micro-average), each in [0, 1].

    A span counts if its first word, its last word and its kind are right. A ratio without a denominator is 0.

    Args:
        gold: True tags of each sentence, in IOB2.
        found: Predicted tags of the same words.

    Raises:
        ValueError: If the numbers of sentences or of words differ.

    References:
        Tjong Kim Sang and Buchholz, Introduction to the CoNLL-2000 Shared Task: Chunking (2000), section 3
        Nakayama, seqeval (2018). github.com/chakki-works/seqeval
    """
    if [len(tags) for tags in gold] != [len(tags) for tags in found]:
        raise ValueError(
            "Cannot score tags: the true and the predicted sentences differ in length. Give one tag a word."
        )
    pairs = [(spans_of(a), spans_of(b)) for a, b in zip(gold, found, strict=True)]
    right = sum(len(a & b) for a, b in pairs)
    num_gold, num_found = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    precision = right / num_found if num_found else 0.0
    recall = right / num_gold if num_gold else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0
