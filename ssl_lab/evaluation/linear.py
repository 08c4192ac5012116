"""Linear probes: multinomial logistic regression on frozen features, with all labels or a few."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.evaluation.protocol import FeatureProtocol, FeatureSet
from ssl_lab.evaluation.scores import classification_scores

HOLDOUT = 5  # every fifth train sample chooses the penalty


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Features with the train split's mean 0 and deviation 1; constant features become 0."""
    mean, std = train.mean(0), train.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max().clamp(min=1e-12), std, torch.inf)
    return [(x - mean) / std for x in (train, *others)]


@torch.enable_grad()
def fit_logistic(
    x: Tensor, y: Tensor, *, num_classes: int, l2: float, max_iter: int = 200, start: Tensor | None = None
) -> Tensor:
    r"""Weights of a multinomial logistic regression, bias last, shape (num_classes, D + 1).

    Minimises :math:`\frac1N \sum_i \mathrm{CE}_i + \frac{\lambda}{2} \lVert W \rVert^2` (bias not penalised) by L-BFGS on
    the whole batch, so the result is deterministic. With scikit-learn's C it is :math:`\lambda = 1 / (C N)`.

    Args:
        x: Features, fp32 (N, D).
        y: Labels, int64 (N,).
        num_classes: Number of classes.
        l2: Strength of the penalty, :math:`\lambda`.
        max_iter: Largest number of iterations.
        start: Weights to start from; zeros by default.
    """
    weights = torch.zeros(num_classes, x.shape[1] + 1, device=x.device) if start is None else start.clone()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=max_iter, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(weights, x), y) + 0.5 * l2 * weights[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return weights.detach()


def logits(weights: Tensor, x: Tensor) -> Tensor:
    """Scores (N, num_classes) of features (N, D)."""
    return x @ weights[:, :-1].T + weights[:, -1]


class LinearProbe(FeatureProtocol):
    """A linear classifier on standardised features of all labelled train samples.

    The penalty is chosen on a fifth of the train split, then the probe is fitted on all of it: the scored split decides
    nothing.

    Args:
        penalties: Strengths to choose from.
        max_iter: L-BFGS iterations for each.
    """

    def __init__(self, *, penalties: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4), max_iter: int = 200) -> None:
        if not penalties or min(penalties) < 0:
            raise ValueError(f"LinearProbe needs penalties of at least 0, found {list(penalties)}.")
        self.penalties = tuple(sorted(penalties, reverse=True))
        self.max_iter = max_iter

    def score(self, features: FeatureSet) -> dict[str, float]:
        """Fit on the train features, score the test features."""
        return classification_scores("linear", self.predict(features), features.test_y, features.num_classes)

    def predict(self, features: FeatureSet) -> Tensor:
        """Predicted classes of the test features, int64 (M,)."""
        train, test = standardise(features.train_x, features.test_x)
        y, num_classes = features.train_y, features.num_classes
        penalty = self._choose_penalty(train, y, num_classes) if len(self.penalties) > 1 else self.penalties[0]
        weights = fit_logistic(train, y, num_classes=num_classes, l2=penalty, max_iter=self.max_iter)
        return logits(weights, test).argmax(1)

    def _choose_penalty(self, x: Tensor, y: Tensor, num_classes: int) -> float:
        held_out = torch.arange(len(x), device=x.device) % HOLDOUT == 0
        losses, weights = [], None
        for penalty in self.penalties:  # from strong to weak, each from the last one's solution
            weights = fit_logistic(
                x[~held_out], y[~held_out], num_classes=num_classes, l2=penalty, max_iter=self.max_iter, start=weights
            )
            losses.append(float(F.cross_entropy(logits(weights, x[held_out]), y[held_out])))
        return self.penalties[losses.index(min(losses))]


class FewLabelProbe(FeatureProtocol):
    """A linear classifier with only a few labels per class, over several draws of the labelled samples.

    Features are standardised with all train samples (no labels needed for that). The penalty is fixed, since nothing
    could be held out. The draws depend on labels and seed alone, so every representation gets the same ones. A class
    with fewer samples than asked for gives all it has.

    Args:
        labels_per_class: One or several n; metrics are ``few_label/top1_n<n>`` and ``..._std`` over draws.
        num_draws: Number of draws.
        seed: Seed of the draws.
        penalty: Strength of the penalty.
    """

    def __init__(
        self,
        *,
        labels_per_class: tuple[int, ...] = (1, 5, 10),
        num_draws: int = 10,
        seed: int = 0,
        penalty: float = 1e-2,
    ) -> None:
        if not labels_per_class or min(labels_per_class) < 1 or num_draws < 1:
            raise ValueError(
                f"FewLabelProbe needs at least one label per class and one draw, found {list(labels_per_class)} and "
                f"{num_draws}."
            )
        self.labels_per_class = tuple(labels_per_class)
        self.num_draws = num_draws
        self.seed = seed
        self.penalty = penalty

    def score(self, features: FeatureSet) -> dict[str, float]:
        """Mean and deviation of the accuracy over draws."""
        train, test = standardise(features.train_x, features.test_x)
        metrics = {}
        for n in self.labels_per_class:
            accuracies = []
            for draw in range(self.num_draws):
                chosen = draw_labels(features.train_y, n, seed=self.seed * 10_000 + draw)
                weights = fit_logistic(
                    train[chosen], features.train_y[chosen], num_classes=features.num_classes, l2=self.penalty
                )
                accuracies.append((logits(weights, test).argmax(1) == features.test_y).double().mean())
            result = torch.stack(accuracies)
            metrics[f"few_label/top1_n{n}"] = float(result.mean())
            metrics[f"few_label/top1_n{n}_std"] = float(result.std()) if len(result) > 1 else 0.0
        return metrics


def draw_labels(labels: Tensor, n: int, *, seed: int) -> Tensor:
    """Rows of n samples of each class, int64, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    shuffled = labels[order]
    return torch.cat([order[shuffled == label][:n] for label in labels.unique()])
