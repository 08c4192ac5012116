"""Linear probes: multinomial logistic regression on frozen features, with all labels or a few."""

from __future__ import annotations

import math
import statistics
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.devices import wide
from ssl_lab.evaluation.probes.metrics import FEW_LABEL_METRICS, LINEAR_METRICS
from ssl_lab.evaluation.probes.scores import classification_scores, has_two_classes
from ssl_lab.evaluation.protocol import FeatureProtocol, FeatureSet, order_of_two

_WEIGHTS_AT_ONCE = 50_000  # of few-label probes that are fitted side by side; more of them are no faster
HOLDOUT_SHARE = 0.2  # of the train split, to choose the penalty


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Features (N, D), and others, shifted and scaled so that the first have mean 0 and deviation 1.

    A feature that is constant in the first, to about 1e-6 of its size, becomes 0; how large it is does not matter.
    """
    orders = -order_of_two(train.abs().amax(0))
    scaled = [torch.ldexp(x, orders) for x in (train, *others)]  # exact; squares of fp32 overflow beyond 1e19
    mean, std = scaled[0].mean(0), scaled[0].std(0, correction=0)
    std = torch.where(std > 1e-6, std, torch.inf)
    return [(x - mean) / std for x in scaled]


@torch.no_grad()
def fit_logistic(
    x: Tensor,
    y: Tensor,
    *,
    num_classes: int,
    l2: float,
    max_iter: int = 100,
    history_size: int = 100,
    start: Tensor | None = None,
) -> Tensor:
    r"""Weights of a multinomial logistic regression, bias last, shape (..., num_classes, D + 1).

    Minimises :math:`\frac1N \sum_i \mathrm{CE}_i + \frac{\lambda}{2} \lVert W \rVert^2` (bias not penalised) by L-BFGS on
    the whole batch, on the device of the features, so the result is deterministic. With scikit-learn's C it is
    :math:`\lambda = 1 / (C N)`, and twice that for two classes, which it gives one vector of weights. Leading dimensions are
    problems of their own, fitted side by side.

    Args:
        x: Features, fp32 (..., N, D).
        y: Labels, int64 (..., N).
        num_classes: Number of classes.
        l2: Strength of the penalty, :math:`\lambda`.
        max_iter: Largest number of iterations.
        history_size: Former steps that L-BFGS keeps.
        start: Weights to start from; zeros by default.

    Returns:
        The weights, fp32; see :func:`logits`.
    """
    shape = (*x.shape[:-2], num_classes, x.shape[-1] + 1)
    weights = torch.zeros(shape, device=x.device) if start is None else start.clone()
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=max_iter,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=history_size,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss, weights.grad = loss_and_gradient(weights, x, y, l2=l2)
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return weights


def loss_and_gradient(weights: Tensor, x: Tensor, y: Tensor, *, l2: float) -> tuple[Tensor, Tensor]:
    """Compute the loss of :func:`fit_logistic` and its gradient, which takes autograd five times as long on a CPU.

    Returns:
        The loss, a scalar, summed over leading dimensions, and its gradient by the weights, of their shape.
    """
    weight, bias, num_samples, label = weights[..., :-1], weights[..., -1:], x.shape[-2], y.unsqueeze(-2)
    log_probs = (weight @ x.mT).add_(bias).log_softmax(-2)
    loss = -log_probs.gather(-2, label).sum() / num_samples + 0.5 * l2 * weight.square().sum()
    residuals = log_probs.exp_().scatter_add_(-2, label, -torch.ones_like(label, dtype=x.dtype))
    gradient = torch.cat([residuals @ x, residuals.sum(-1, keepdim=True)], -1) / num_samples
    gradient[..., :-1] += l2 * weight
    return loss, gradient


def logits(weights: Tensor, x: Tensor) -> Tensor:
    """Scores (..., N, num_classes) of features (N, D) under weights (..., num_classes, D + 1)."""
    return x @ weights[..., :-1].mT + weights[..., None, :, -1]


class LinearProbe(FeatureProtocol):
    """A linear classifier on standardised features of all labelled train samples.

    The penalty is chosen on a fifth of the train split, drawn with a fixed seed, then the probe is fitted on all of it:
    the scored split decides nothing. One held-out part is used, as cross-validation would cost five times as much for
    strengths that lie a factor of ten apart. Penalties are tried from strong to weak as long as the held-out cross
    entropy falls. A single penalty is used as it is.

    Metrics: ``linear/top1``, ``linear/macro_f1`` and ``linear/recall`` (mean over classes), shares in [0, 1].

    Args:
        penalties: Strengths to choose from; see :func:`fit_logistic`.
        max_iter: Largest number of L-BFGS iterations for each.
    """

    metrics = LINEAR_METRICS

    def __init__(self, *, penalties: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4), max_iter: int = 100) -> None:
        if not penalties or not all(0 <= penalty < math.inf for penalty in penalties) or max_iter < 1:
            raise ValueError(
                f"LinearProbe needs one penalty or more, each at least 0, and an iteration, found {list(penalties)} and "
                f"max_iter={max_iter}. Set penalties=[0.01] for a fixed one, max_iter=100."
            )
        self.penalties = tuple(sorted(penalties, reverse=True))
        self.max_iter = max_iter

    def score(self, features: FeatureSet) -> dict[str, float]:
        """Fit on the train features, score the test features."""
        return classification_scores("linear", self.predict(features), features.test_y, features.num_classes)

    def predict(self, features: FeatureSet) -> Tensor:
        """Predicted classes of the test features, int64 (M,)."""
        train, test = standardise(features.train_x, features.test_x)
        y, num_classes = features.train_y, features.num_classes
        penalty, start = self.penalties[0], None
        if len(self.penalties) > 1 and len(train) > 1:  # else none could be held out
            penalty, start = self._choose_penalty(train, y, num_classes)
        weights = fit_logistic(train, y, num_classes=num_classes, l2=penalty, max_iter=self.max_iter, start=start)
        return logits(weights, test).argmax(1)

    def _choose_penalty(self, x: Tensor, y: Tensor, num_classes: int) -> tuple[float, Tensor | None]:
        """The best penalty on held-out samples and its weights, from which the final fit starts."""
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
        num_held_out = max(1, int(HOLDOUT_SHARE * len(x)))
        held_x, held_y = x[order[:num_held_out]], y[order[:num_held_out]]
        fit_x, fit_y = x[order[num_held_out:]], y[order[num_held_out:]]
        best_loss, best_penalty, weights = math.inf, self.penalties[0], None
        for penalty in self.penalties:
            tried = fit_logistic(
                fit_x, fit_y, num_classes=num_classes, l2=penalty, max_iter=self.max_iter, start=weights
            )
            loss = float(F.cross_entropy(logits(tried, held_x), held_y))
            if not loss < best_loss:
                break
            best_loss, best_penalty, weights = loss, penalty, tried
        return best_penalty, weights


class FewLabelProbe(FeatureProtocol):
    """A linear classifier with only a few labels per class, over several draws of the labelled samples.

    Features are standardised with all train samples (no labels needed for that). The penalty is fixed, since nothing
    could be held out. The draws depend on labels and seed alone, so every representation gets the same ones, and those
    with fewer labels are part of those with more. A class with fewer samples than asked for gives all it has.

    Metrics: ``few_label/top1_n<n>``, the mean accuracy over draws, and ``few_label/top1_n<n>_std``, its sample deviation
    (0 for one draw).

    Args:
        labels_per_class: One or several n.
        num_draws: Number of draws.
        seed: Seed of the draws.
        penalty: Strength of the penalty; see :func:`fit_logistic`. Between 0.001 and 0.1 it hardly matters on pixels of
            the bundled digits (84 % with 5 labels); stronger ones lose.
    """

    metrics = FEW_LABEL_METRICS
    told_by_names: ClassVar[tuple[str, ...]] = ("labels_per_class",)

    def __init__(
        self,
        *,
        labels_per_class: tuple[int, ...] = (1, 5, 10),
        num_draws: int = 10,
        seed: int = 0,
        penalty: float = 1e-2,
    ) -> None:
        if not labels_per_class or min(labels_per_class) < 1 or num_draws < 1 or penalty <= 0:
            raise ValueError(
                "FewLabelProbe needs at least one label per class, one draw and a penalty above 0, found "
                f"{list(labels_per_class)}, {num_draws} and {penalty}. Set labels_per_class=[1, 5, 10], num_draws=10 and "
                "penalty=0.01, the defaults."
            )
        self.labels_per_class = tuple(labels_per_class)
        self.num_draws = num_draws
        self.seed = seed
        self.penalty = penalty

    def score(self, features: FeatureSet) -> dict[str, float]:
        """Mean and deviation of the accuracy over draws."""
        # On the host: a hundred rows are no work for a device.
        train, test = (x.cpu() for x in standardise(features.train_x, features.test_x))
        classes, train_y = features.train_y.cpu().unique(return_inverse=True)  # others have no samples to learn from
        test_y = features.test_y.cpu()
        metrics = {}
        if not has_two_classes(test_y):
            names = [f"few_label/top1_n{n}{kind}" for n in self.labels_per_class for kind in ("", "_std")]
            return dict.fromkeys(names, math.nan)
        for n in self.labels_per_class:
            draws = [draw_labels(train_y, n, seed=self.seed * 10_000 + draw) for draw in range(self.num_draws)]
            accuracies = []
            for chosen in torch.stack(draws).split(max(1, _WEIGHTS_AT_ONCE // (len(draws[0]) * len(classes)))):
                weights = fit_few(train[chosen], train_y[chosen], num_classes=len(classes), l2=self.penalty)
                found = logits(weights, test).argmax(-1)
                accuracies += wide(classes[found] == test_y).mean(-1).tolist()
            metrics[f"few_label/top1_n{n}"] = statistics.mean(accuracies)
            metrics[f"few_label/top1_n{n}_std"] = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        return metrics


def fit_few(x: Tensor, y: Tensor, *, num_classes: int, l2: float) -> Tensor:
    """:func:`fit_logistic` for a few samples: features (..., N, D) of more dimensions than samples cost no more.

    Penalised weights lie in the span of the samples, so they are fitted to the samples' coordinates there, of which there
    are min(N, D), and then written out in features.
    """
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    weights = fit_logistic(
        left * singular.unsqueeze(-2), y, num_classes=num_classes, l2=l2, max_iter=1000, history_size=10
    )
    return torch.cat([weights[..., :-1] @ right, weights[..., -1:]], -1)


def draw_labels(labels: Tensor, n: int, *, seed: int) -> Tensor:
    """Rows of n samples of each class, int64, drawn without replacement: a function of labels, n and seed alone."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    return torch.cat([order[shuffled == label][:n] for label in labels.unique()])
