import json
import random

import pytest
import torch
from tasks.tiny import encoder, fit, optim
from torchmetrics.text import SQuAD

from ssl_lab.data.text.question_answering import QuestionAnswering as Questions
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.tasks.question_answering import Answers, QuestionAnswering, best_spans, normalise, word_f1

CPU = torch.device("cpu")
PAIRS = [
    ("the Battle of Hastings", ["Battle of Hastings", "Hastings"]),
    ("1066", ["in 1066.", "the year 1066"]),
    ("An old, old town", ["old town", "a town"]),
    ("", ["the"]),
    ("nothing", ["something else"]),
    ("theatre an", ["Theatre"]),
    ("Smith-Jones", ["Smith Jones"]),
]


@pytest.fixture
def folder(tmp_path):
    """The answer is the number in a text of other words."""
    chance = random.Random(0)
    for split, num in (("train", 120), ("val", 8), ("test", 20)):
        articles = []
        for k in range(num):
            words = [chance.choice(["The", "town", "is", "old,", "by", "river"]) for _ in range(12)]
            words[chance.randrange(12)] = answer = chance.choice(["7", "8", "9"])
            context = " ".join(words)
            asked = {"id": str(k), "question": "Which number?"}
            asked["answers"] = [{"text": answer, "answer_start": context.index(answer)}]
            articles.append({"paragraphs": [{"context": context, "qas": [asked]}]})
        (tmp_path / f"{split}.json").write_text(json.dumps({"data": articles}))
    return tmp_path


def test_learns(folder, tmp_path):
    data = Questions(str(folder), vocab_size=80, max_length=24, max_question_length=6, doc_stride=4, batch_size=8)
    method = QuestionAnswering(encoder(data.spec), optim())
    losses = fit(method, data, tmp_path, epochs=6)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    found = evaluate(method.capabilities(), [Answers()], data, device=CPU)
    assert set(found) == {"finetune/exact_match", "finetune/f1"}
    assert found["finetune/exact_match"] > 0.5
    data.eval_batch_size = 3
    assert evaluate(method.capabilities(), [Answers()], data, device=CPU) == found


def test_the_right_spans_score_everything_over_windows(folder):
    data = Questions(str(folder), vocab_size=80, max_length=18, max_question_length=6, doc_stride=2)
    assert len(data.columns("test")["input_ids"]) > len(data.questions("test"))

    def right(batch):
        ends = torch.stack([batch["start_position"], batch["end_position"]], 1).float()
        return torch.cat([ends, (ends[:, :1] > 0).float()], 1)

    assert evaluate({"answer_spans": right}, [Answers()], data, device=CPU) == {
        "finetune/exact_match": 1.0,
        "finetune/f1": 1.0,
    }


def test_answers_of_no_length_are_refused(folder):
    data = Questions(str(folder), vocab_size=80, max_length=24, max_question_length=6, doc_stride=4)
    with pytest.raises(ValueError, match="max_answer_length must be at least 1"):
        QuestionAnswering(encoder(data.spec), optim(), max_answer_length=0)


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
