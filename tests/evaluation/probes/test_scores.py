import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_recall

from ssl_lab.evaluation.probes.scores import class_counts, classification_scores, scores_of_counts


@pytest.mark.parametrize("num_classes", [2, 13])
def test_scores_are_those_of_torchmetrics_to_the_last_bit_whole_or_in_parts(num_classes):
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(0, max(2, num_classes - 3), (101,), generator=generator)  # some classes are never seen
    guesses = torch.randint(0, max(2, num_classes - 1), (101,), generator=generator)
    predictions = torch.where(torch.rand(101, generator=generator) < 0.4, labels, guesses)
    expected = {
        "probe/top1": float(multiclass_accuracy(predictions, labels, num_classes, average="micro")),
        "probe/macro_f1": float(multiclass_f1_score(predictions, labels, num_classes, average="macro")),
        "probe/recall": float(multiclass_recall(predictions, labels, num_classes, average="macro")),
    }
    assert classification_scores("probe", predictions, labels, num_classes) == expected
    parts = [class_counts(predictions[rows], labels[rows], num_classes) for rows in (slice(0, 30), slice(30, None))]
    assert scores_of_counts("probe", parts[0] + parts[1]) == expected
