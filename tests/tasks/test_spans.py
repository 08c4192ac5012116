import random
import warnings

import pytest

from ssl_lab.tasks.spans import span_scores, spans_of


def by_trying_all(tags):
    """Each stretch of words, tested against the definition of a span."""
    found = set()
    for first in range(len(tags)):
        for end in range(first + 1, len(tags) + 1):
            kind = tags[first][2:]
            inside = all(tag == f"I-{kind}" for tag in tags[first + 1 : end])
            goes_on = end < len(tags) and tags[end] == f"I-{kind}"
            if tags[first] == f"B-{kind}" and inside and not goes_on:
                found.add((first, end, kind))
    return found


def random_tags(seed, number=200):
    draw = random.Random(seed)
    names = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    gold = [draw.choices(names, k=draw.randint(1, 12)) for _ in range(number)]
    return gold, [[tag if draw.random() < 0.7 else draw.choice(names) for tag in tags] for tags in gold]


def test_spans_and_scores_by_trying_all():
    gold, found = random_tags(0)
    for tags in gold + found:
        assert spans_of(tags) == by_trying_all(tags)
    true = {(k, *span) for k, tags in enumerate(gold) for span in by_trying_all(tags)}
    guessed = {(k, *span) for k, tags in enumerate(found) for span in by_trying_all(tags)}
    right = len(true & guessed)
    assert 0 < right < min(len(true), len(guessed))
    assert span_scores(gold, found) == pytest.approx(
        (right / len(guessed), right / len(true), 2 * right / (len(true) + len(guessed)))
    )


def test_the_example_of_seqeval():
    """README of seqeval: F1 0.50, one span of two is right."""
    gold = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    found = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert span_scores(gold, found) == (0.5, 0.5, 0.5)


def test_the_strict_example_of_seqeval():
    """README of seqeval: mode strict with IOB2 finds no span in what begins by I-, so its F1 is 0."""
    assert span_scores([["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("found", [["O", "O"], ["I-X", "I-X"], ["B-Y", "O"]])
def test_without_a_right_span_all_scores_are_zero(found):
    assert span_scores([["B-X", "I-X"]], [found]) == (0.0, 0.0, 0.0)
    assert span_scores([found], [["B-X", "I-X"]]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("found", [[["O"]], [["O", "O"], ["O"]]])
def test_other_numbers_of_words_are_refused(found):
    with pytest.raises(ValueError, match="differ in length"):
        span_scores([["O", "O"]], found)


@pytest.mark.parametrize("seed", range(5))
def test_seqeval_agrees(seed):
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    from seqeval.scheme import IOB2

    gold, found = random_tags(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
        expected = [
            score(gold, found, **settings)
            for score in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
        ]
    assert span_scores(gold, found) == pytest.approx(expected)
