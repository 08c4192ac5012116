import random

import pytest
import torch
from arrays import ArrayTextPairs
from tasks.tiny import encoder, fit, optim

from ssl_lab.data.text.token_labels import TokenLabels
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.tasks.token_classification import TaggedSpans, TokenClassification

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Names of one or two words between other words."""
    chance = random.Random(0)
    for split, num in (("train", 80), ("val", 10), ("test", 20)):
        lines = []
        for _ in range(num):
            for _ in range(4):
                lines += [f"{chance.choice(['runs', 'sleeps', 'and'])} O"] * chance.randint(0, 2)
                lines += [f"{chance.choice(['anna', 'bertha'])} B-PER", "smith I-PER"][: chance.randint(1, 2)]
                lines += ["in O", f"{chance.choice(['rome', 'oslo'])} B-LOC"]
            lines.append("")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    return tmp_path


def test_learns_and_scores_whole_sentences_however_they_are_cut(folder, tmp_path):
    data = TokenLabels(str(folder), vocab_size=80, max_length=24, batch_size=8)
    method = TokenClassification(encoder(data.spec), optim())
    losses = fit(method, data, tmp_path, epochs=3)
    assert losses[-1] < 0.3 * losses[0]
    found = evaluate(method.capabilities(), [TaggedSpans()], data, device=CPU)
    assert found["finetune/f1"] > 0.9
    assert found["finetune/token_accuracy"] > 0.9
    data.eval_batch_size = 3
    assert evaluate(method.capabilities(), [TaggedSpans()], data, device=CPU) == found
    cut = TokenLabels(str(folder), vocab_size=80, max_length=8)
    assert len(cut.columns("test")["input_ids"]) > len(data.columns("test")["input_ids"])
    perfect = evaluate({"tags": lambda batch: batch["token_labels"].clamp(min=0)}, [TaggedSpans()], cut, device=CPU)
    assert set(perfect.values()) == {1.0}


def test_spans_count_only_if_they_are_exact(tmp_path):
    (tmp_path / "train.txt").write_text("a B-X\nb I-X\nc O\nd B-Y\n\n")
    (tmp_path / "test.txt").write_text("a B-X\nb I-X\nc O\nd B-Y\n\n")
    data = TokenLabels(str(tmp_path), vocab_size=30, val_fraction=0)
    number = {name: k for k, name in enumerate(data.class_names)}

    def guess(*tags):
        def tag(batch):
            out = torch.zeros_like(batch["input_ids"])
            out[batch["token_labels"] >= 0] = torch.tensor([number[t] for t in tags])
            return out

        return evaluate({"tags": tag}, [TaggedSpans()], data, device=CPU)

    half = guess("B-X", "B-X", "O", "B-Y")  # spans: X, X, Y; right: Y of two
    assert half["finetune/precision"] == pytest.approx(1 / 3)
    assert half["finetune/span_recall"] == pytest.approx(1 / 2)
    assert half["finetune/f1"] == pytest.approx(2 / 5)
    assert guess("I-X", "I-X", "O", "B-Y")["finetune/span_recall"] == 0.5, "I- begins no span"
    assert guess("O", "O", "O", "O") == {
        "finetune/token_accuracy": 0.25,
        **dict.fromkeys(("finetune/precision", "finetune/span_recall", "finetune/f1"), 0.0),
    }


def test_scores_that_are_not_finite_are_refused(folder):
    data = TokenLabels(str(folder), vocab_size=80, max_length=24, batch_size=8)
    method = TokenClassification(encoder(data.spec), optim())
    with torch.no_grad():
        method.head[1].bias[1] = torch.nan
    with pytest.raises(ValueError, match="Scores of ([0-9]+) of \\1 test words are not finite"):
        evaluate(method.capabilities(), [TaggedSpans()], data, device=CPU)


def test_parts_of_speech_have_no_spans(tmp_path):
    (tmp_path / "train.txt").write_text("a DT\nb NN\n\n" * 4)
    data = TokenLabels(str(tmp_path), vocab_size=30)
    found = evaluate({"tags": lambda batch: torch.zeros_like(batch["input_ids"])}, [TaggedSpans()], data, device=CPU)
    assert found == {"finetune/token_accuracy": 0.5}


def test_data_without_tags_is_refused():
    from dataclasses import replace

    with pytest.raises(ValueError, match="Choose data=token_labels"):
        TokenClassification(encoder(replace(ArrayTextPairs().spec, targets={})), optim())
