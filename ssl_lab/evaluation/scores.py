"""Classification metrics under the names that every protocol uses."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_recall


def classification_scores(name: str, predictions: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, macro F1 and macro recall of predicted classes, both int64 (M,)."""
    return {
        f"{name}/top1": float(multiclass_accuracy(predictions, labels, num_classes, average="micro")),
        f"{name}/macro_f1": float(multiclass_f1_score(predictions, labels, num_classes, average="macro")),
        f"{name}/recall": float(multiclass_recall(predictions, labels, num_classes, average="macro")),
    }
