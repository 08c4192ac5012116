import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.clusters import clusters, noise
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.neighbors import KNeighborsClassifier

from ssl_lab.evaluation.probes.knn import KNN


def vote_slowly(features, k, temperature):
    predictions = []
    for x in features.test_x.tolist():
        similarities = []
        for other, label in zip(features.train_x.tolist(), features.train_y.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(x, other, strict=True))
            similarities.append((dot / math.hypot(*x) / math.hypot(*other), label))
        votes = [0.0] * features.num_classes
        for similarity, label in sorted(similarities, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        predictions.append(votes.index(max(votes)))
    return torch.tensor(predictions)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_equals_a_slow_loop(k):
    features = clusters(spread=0.6)
    torch.testing.assert_close(KNN().predict(features, k), vote_slowly(features, k, 0.07))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_scikit_learn(temperature):
    features = clusters(spread=0.6, num_test=1500)  # more than one chunk
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    reference.fit(features.train_x.double(), features.train_y)
    expected = torch.from_numpy(reference.predict(features.test_x.double()))
    torch.testing.assert_close(KNN(temperature=temperature).predict(features, 20), expected)


def test_metrics_are_those_of_scikit_learn():
    features = clusters(spread=0.6)
    predictions = KNN().predict(features, 20)
    assert KNN().score(features) == pytest.approx(
        {
            "knn/top1": accuracy_score(features.test_y, predictions),
            "knn/macro_f1": f1_score(features.test_y, predictions, average="macro"),
            "knn/recall": recall_score(features.test_y, predictions, average="macro"),
        }
    )


def test_the_first_k_names_the_plain_metrics_and_further_ones_carry_theirs():
    features = clusters(spread=0.6)
    scores = KNN(num_neighbors=(5, 1, 200)).score(features)
    assert set(scores) == {"knn/top1", "knn/macro_f1", "knn/recall", "knn/top1_k1", "knn/top1_k200"}
    assert scores["knn/top1"] == KNN(num_neighbors=(5,)).score(features)["knn/top1"]
    assert scores["knn/top1_k1"] == KNN(num_neighbors=(1,)).score(features)["knn/top1"]


def test_separate_clusters_score_one_and_noise_scores_chance():
    assert KNN().score(clusters(spread=0.02)) == {"knn/top1": 1.0, "knn/macro_f1": 1.0, "knn/recall": 1.0}
    assert KNN().score(noise(num_test=2000))["knn/top1"] == pytest.approx(0.25, abs=0.05)


def test_more_neighbors_than_samples_means_all():
    features = clusters(spread=0.6, num_train=30)
    assert KNN(num_neighbors=(500,)).score(features) == KNN(num_neighbors=(30,)).score(features)


def test_neither_the_scale_nor_the_order_of_train_features_matters():
    features = clusters(spread=0.6)
    order = torch.randperm(len(features.train_x), generator=torch.Generator().manual_seed(1))
    other = replace(features, train_x=1000 * features.train_x[order], train_y=features.train_y[order])
    assert KNN().score(other) == KNN().score(features)


def test_a_tiny_temperature_asks_the_nearest_alone():
    features = clusters(spread=0.6)
    torch.testing.assert_close(KNN(temperature=1e-5).predict(features, 20), KNN().predict(features, 1))


@pytest.mark.parametrize("settings", [{"num_neighbors": ()}, {"num_neighbors": (20, 0)}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="k >= 1"):
        KNN(**settings)
