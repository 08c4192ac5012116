"""Weighted nearest neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_lab.evaluation.probes.metrics import KNN_METRICS
from ssl_lab.evaluation.probes.scores import classification_scores
from ssl_lab.evaluation.protocol import FeatureProtocol, FeatureSet, unit_rows


class KNN(FeatureProtocol):
    r"""k nearest neighbours by cosine similarity; a neighbour votes with weight :math:`\exp(s/\tau)`.

    Metrics: ``knn/top1``, ``knn/macro_f1`` and ``knn/recall`` (mean over classes), shares in [0, 1].

    Args:
        num_neighbors: One or several k; cut to the number of train samples. The first names the plain metrics, further
            ones add ``knn/top1_k<k>``.
        temperature: :math:`\tau`.

    References:
        Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (2018). arXiv:1805.01978
    """

    metrics = KNN_METRICS

    def __init__(self, *, num_neighbors: tuple[int, ...] = (20,), temperature: float = 0.07) -> None:
        if not num_neighbors or min(num_neighbors) < 1 or temperature <= 0:
            raise ValueError(
                f"KNN needs every k >= 1 and a temperature > 0, found {list(num_neighbors)} and {temperature}. "
                "Set num_neighbors=[20] and temperature=0.07, the defaults."
            )
        self.num_neighbors = tuple(num_neighbors)
        self.temperature = temperature

    @property
    def settings(self) -> dict[str, Any]:
        """The first k alone: the names of the others say theirs."""
        return {**super().settings, "num_neighbors": self.num_neighbors[0]}

    def score(self, features: FeatureSet) -> dict[str, float]:
        """Vote among the train features."""
        metrics: dict[str, float] = {}
        for number, k in enumerate(self.num_neighbors):
            scores = classification_scores("knn", self.predict(features, k), features.test_y, features.num_classes)
            metrics |= scores if number == 0 else {f"knn/top1_k{k}": scores["knn/top1"]}
        return metrics

    def predict(self, features: FeatureSet, k: int) -> Tensor:
        """Predicted classes of the test features, int64 (M,)."""
        train = unit_rows(features.train_x)
        predictions = []
        for chunk in unit_rows(features.test_x).split(1024):
            similarity, neighbors = (chunk @ train.T).topk(min(k, len(train)), dim=1)
            weights = torch.exp((similarity - similarity[:, :1]) / self.temperature)  # the nearest weighs 1
            votes = torch.zeros(len(chunk), features.num_classes, device=chunk.device)
            predictions.append(votes.scatter_add_(1, features.train_y[neighbors], weights).argmax(1))
        return torch.cat(predictions)
