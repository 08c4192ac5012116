"""Judges of features and samples that owe nothing to ssl_lab: scikit-learn, and a small CNN trained with labels."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

FEATURE_SCORES = ("knn", "linear", "labels_10")


def features(train, labels, test, truth, *, draws=5):
    """Balanced accuracy in % of 20 nearest neighbours (cosine) and logistic regression, on all and on 10 labels a class."""
    knn = KNeighborsClassifier(20, metric="cosine").fit(train, labels)
    scaler = StandardScaler().fit(train)
    x, y = scaler.transform(train), scaler.transform(test)

    def regression(rows):
        fitted = LogisticRegression(C=0.1, max_iter=300).fit(x[rows], labels[rows])
        return 100 * balanced_accuracy_score(truth, fitted.predict(y))

    few = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        few.append(regression(np.concatenate([order[labels[order] == name][:10] for name in np.unique(labels)])))
    scores = 100 * balanced_accuracy_score(truth, knn.predict(test)), regression(slice(None)), np.mean(few)
    return dict(zip(FEATURE_SCORES, map(float, scores), strict=True))


class SampleJudge:
    """Frechet distance on a CNN's penultimate features, and the smallest share of a class by its predictions.

    Args:
        train: Images uint8 (N, C, H, W).
        labels: Their classes.
        test: Other images, whose features samples are compared with.
        truth: Their classes.
    """

    def __init__(self, train, labels, test, truth, *, epochs=8):
        torch.manual_seed(0)
        channels, side, classes = train.shape[1], train.shape[2], int(labels.max()) + 1
        stages = []
        for w_in, w_out in ((channels, 32), (32, 64), (64, 64)):
            stages += [nn.Conv2d(w_in, w_out, 3, padding=1), nn.BatchNorm2d(w_out), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*stages, nn.Flatten(), nn.Linear(64 * (side // 8) ** 2, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)
        x, y = torch.from_numpy(train), torch.from_numpy(labels).long()
        parameters = [*self.body.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(parameters, 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (len(x) // 128))
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                if len(rows) == 128:
                    optimizer.zero_grad()
                    F.cross_entropy(self.head(self.body(x[rows].float() / 255)), y[rows]).backward()
                    optimizer.step()
                    schedule.step()
        self.body.eval()
        self.real, found = self._read(test)
        self.accuracy = 100 * float((found == truth).mean())
        self.classes = classes

    @torch.no_grad()
    def _read(self, images):
        features = torch.cat([self.body(part.float() / 255) for part in torch.from_numpy(images).split(500)])
        return features.double().numpy(), self.head(features).argmax(1).numpy()

    def score(self, samples):
        """Frechet distance to the test images and the smallest share of a class in %."""
        found, classes = self._read(samples)
        shares = np.bincount(classes, minlength=self.classes) / len(classes)
        return {"frechet": frechet(found, self.real), "rarest_class": 100 * float(shares.min())}


def frechet(a, b):
    """Frechet distance between normal distributions fitted to the rows of two arrays."""
    x, y = ((each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (a, b))
    cross = np.linalg.svd(
        x @ y.T if len(x) < x.shape[1] else np.linalg.qr(x)[1] @ np.linalg.qr(y)[1].T, compute_uv=False
    )
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross.sum())
