import pytest
import torch
from torchmetrics.text import SQuAD

from ssl_lab.evaluation.answers import normalise, word_f1
from ssl_lab.tasks.question_answering import best_spans

PAIRS = [
    ("the Battle of Hastings", ["Battle of Hastings", "Hastings"]),
    ("1066", ["in 1066.", "the year 1066"]),
    ("An old, old town", ["old town", "a town"]),
    ("", ["the"]),
    ("nothing", ["something else"]),
    ("theatre an", ["Theatre"]),
    ("Smith-Jones", ["Smith Jones"]),
]


@pytest.mark.parametrize(("answer", "gold"), PAIRS)
def test_as_the_official_metric(answer, gold):
    reference = SQuAD()
    answers = {"text": gold, "answer_start": [0] * len(gold)}
    found = reference([{"prediction_text": answer, "id": "1"}], [{"answers": answers, "id": "1"}])
    exact = max(float(normalise(answer) == normalise(g)) for g in gold)
    assert 100 * exact == float(found["exact_match"])
    if normalise(answer):  # torchmetrics divides differently where nothing is left
        assert 100 * max(word_f1(answer, g) for g in gold) == pytest.approx(float(found["f1"]))


def test_best_span_by_trying_all():
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 20, 9, generator=generator)
    allowed = torch.rand(20, 9, generator=generator) < 0.7
    allowed[:, 4] = True
    allowed[-1] = False
    found = best_spans(start, end, allowed, max_length=3)
    for row in range(19):
        spans = {
            (i, j): float(start[row, i] + end[row, j])
            for i in range(9)
            for j in range(i, min(9, i + 3))
            if allowed[row, i] and allowed[row, j]
        }
        best = max(spans, key=spans.get)
        assert tuple(found[row, :2].int().tolist()) == best
        assert float(found[row, 2]) == pytest.approx(spans[best])
    assert found[-1, 2] == -torch.inf
