import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayTextPairs
from tasks.tiny import LabelledText, encoder, fit, optim

from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.tasks.classification import ClassScores
from ssl_lab.tasks.text_classification import TextClassification


def test_learns(tmp_path):
    data = LabelledText(batch_size=8)
    method = TextClassification(encoder(data.spec), optim())
    losses = fit(method, data, tmp_path, epochs=4)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    found = evaluate(method.capabilities(), [ClassScores()], data, device=torch.device("cpu"))
    assert set(found) == {"finetune/accuracy", "finetune/recall", "finetune/macro_f1"}
    assert found["finetune/accuracy"] > 0.9
    for size in (3, 64):
        data.eval_batch_size = size
        assert evaluate(method.capabilities(), [ClassScores()], data, device=torch.device("cpu")) == found


def test_the_loss_is_that_of_labelled_rows():
    data = LabelledText()
    method = TextClassification(encoder(data.spec), optim()).eval()
    batch = next(iter(data.eval_dataloader("train")))
    known = batch["label"] >= 0
    expected = F.cross_entropy(method.logits(batch)[known], batch["label"][known])
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_data_without_labels_is_refused():
    from dataclasses import replace

    spec = replace(ArrayTextPairs().spec, targets={})
    with pytest.raises(ValueError, match=r"Set data\.label_column"):
        TextClassification(encoder(spec), optim())
