"""Disentanglement: how far each latent dimension stands for one factor that images were drawn from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import mutual_info_score
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.geometry.metrics import DCI_METRICS, MIG_METRICS
from ssl_lab.evaluation.protocol import Protocol, outputs_of
from ssl_lab.types import Batch

MAX_KINDS = 20  # a factor with more values, or with others than whole numbers, is a quantity


@dataclass(frozen=True)
class Coded:
    """Codes fp64 (N, K) and factors fp64 (N, F) of a split."""

    codes: NDArray[np.float64]
    factors: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse what cannot be compared: fewer than two dimensions, and values that are not finite."""
        if self.codes.shape[1] < 2:
            raise ValueError(
                f"Disentanglement compares latent dimensions, but there is {self.codes.shape[1]}. Set method.latent_dim to 2 "
                "or more."
            )
        if not np.isfinite(self.codes).all() or not np.isfinite(self.factors).all():
            raise ValueError(
                "Cannot compare codes and factors that are not finite. Lower optim.lr, or start from an earlier checkpoint."
            )


class DisentanglementProtocol(Protocol):
    """A protocol that compares codes of images with the factors that the images were drawn from.

    Args:
        num_samples: Number of images of a split to use, the first ones; all if there are fewer.
    """

    needs: ClassVar[str] = "encode"
    needs_columns: ClassVar[tuple[str, ...]] = ("factors",)
    columns_from: ClassVar[Mapping[str, str]] = {"factors": "data=shapes, whose images are drawn from known factors"}
    shared: ClassVar[bool] = True

    def __init__(self, *, num_samples: int) -> None:
        if num_samples < 10:
            raise ValueError(f"{type(self).__name__} needs at least 10 images; found num_samples={num_samples}.")
        self.num_samples = num_samples

    @abstractmethod
    def score(self, train: Coded, test: Coded) -> dict[str, float]:
        """Metrics of codes; what is fitted is fitted on ``train``."""

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score ``fn(batch)``, codes (B, K), of both splits.

        Raises:
            ValueError: If there are fewer than two latent dimensions, or values are not finite.
        """

        def both(batch: Batch) -> tuple[Tensor, Tensor]:
            return fn(batch), batch["factors"]

        parts = []
        for name in ("train", split):
            codes, factors = outputs_of(both, datamodule, name, device=device)
            rows = slice(self.num_samples)
            parts.append(Coded(wide(codes[rows]).numpy(), wide(factors[rows]).numpy()))
        return self.score(*parts)


class MIG(DisentanglementProtocol):
    r"""Mutual information gap: how much more the best latent dimension knows of a factor than the second best.

    .. math:: \frac{1}{F} \sum_k \frac{1}{H(v_k)} \Big( I(z_{j_1}; v_k) - \max_{j \ne j_1} I(z_j; v_k) \Big)

    on the scored split. Codes are cut into bins of equal width between their extremes; factors are taken as they are, as in
    disentanglement_lib, whose number it is. Only continuous ones, which it does not know, are cut into bins too: those that
    are no whole numbers and have more values than a tenth of the images. A factor that is the same in all images is left
    out. ``mig/mig``, and ``mig/factor_<k>`` for each other factor, lie in [0, 1]: 1 if one dimension knows all and no
    other anything. Without a factor that varies, ``mig/mig`` is not a number.

    Args:
        num_bins: Number of bins.
        num_samples: Number of images to use. With few, chance alone gives mutual information.

    References:
        Chen et al., Isolating Sources of Disentanglement in VAEs (2018), section 4. arXiv:1802.04942
    """

    metrics = MIG_METRICS

    def __init__(self, *, num_bins: int = 20, num_samples: int = 10_000) -> None:
        super().__init__(num_samples=num_samples)
        if num_bins < 2:
            raise ValueError(f"MIG needs at least 2 bins; found num_bins={num_bins}.")
        self.num_bins = num_bins

    def score(self, train: Coded, test: Coded) -> dict[str, float]:
        """The gap, of each factor and on average."""
        codes = [_binned(column, self.num_bins) for column in test.codes.T]
        gaps: dict[str, float] = {}
        for number, values in enumerate(test.factors.T):
            if (values == values[0]).all():
                continue
            kinds = (
                _binned(values, self.num_bins) if is_continuous(values) else np.unique(values, return_inverse=True)[1]
            )
            shared = sorted(mutual_info_score(kinds, code) for code in codes)
            gaps[f"mig/factor_{number}"] = float((shared[-1] - shared[-2]) / mutual_info_score(kinds, kinds))
        return {"mig/mig": float(np.mean(list(gaps.values()))) if gaps else math.nan, **gaps}


class DCI(DisentanglementProtocol):
    r"""Disentanglement, completeness and informativeness of codes, by what random forests read them for.

    A forest is fitted to each factor; :math:`R_{jk} \ge 0` is how much that of factor k relies on latent dimension j
    (mean decrease of impurity). With shares :math:`P_{jk} = R_{jk} / \sum_k R_{jk}` and
    :math:`\tilde P_{jk} = R_{jk} / \sum_j R_{jk}`,

    .. math::
        D = \sum_j \frac{\sum_k R_{jk}}{\sum_{jk} R_{jk}} \big( 1 - H_F(P_{j\cdot}) \big) \qquad
        C = \frac{1}{F} \sum_k \big( 1 - H_K(\tilde P_{\cdot k}) \big)

    over the factors that vary, with entropies to the base of the number of factors F and of dimensions K. Informativeness
    is the share of kinds that is recognised, or :math:`R^2` of quantities, at least 0, on the scored split, mean over
    factors. All lie in [0, 1]; D of a single factor, which no dimension can mix with another, is not a number.

    Args:
        num_trees: Trees of each forest.
        num_samples: Number of images of a split to use.
        seed: Seed of the forests.

    References:
        Eastwood and Williams, A Framework for the Quantitative Evaluation of Disentangled Representations (2018).
    """

    metrics = DCI_METRICS

    def __init__(self, *, num_trees: int = 30, num_samples: int = 3000, seed: int = 0) -> None:
        super().__init__(num_samples=num_samples)
        if num_trees < 1:
            raise ValueError(f"DCI needs at least 1 tree; found num_trees={num_trees}.")
        self.num_trees = num_trees
        self.seed = seed

    def score(self, train: Coded, test: Coded) -> dict[str, float]:
        """Fit a forest to each factor, see what it reads, and try it on other images."""
        importance, informativeness = [], []
        for values, truth in zip(train.factors.T, test.factors.T, strict=True):
            if (values == values[0]).all() or (truth == truth[0]).all():
                continue  # known without looking
            settings: dict[str, Any] = {
                "n_estimators": self.num_trees,
                "random_state": self.seed,
                "min_samples_leaf": 2,
            }
            if is_kind(values):
                forest = RandomForestClassifier(**settings, max_features=None).fit(train.codes, values.astype(np.int64))
                truth = truth.astype(np.int64)
            else:
                forest = RandomForestRegressor(**settings).fit(train.codes, values)
            importance.append(forest.feature_importances_)
            informativeness.append(max(0.0, forest.score(test.codes, truth)))
        if not importance:
            names = ("disentanglement", "completeness", "informativeness")
            return {f"dci/{name}": math.nan for name in names}
        disentanglement, completeness = dci_of_importance(np.stack(importance, axis=1))
        return {
            "dci/disentanglement": disentanglement,
            "dci/completeness": completeness,
            "dci/informativeness": float(np.mean(informativeness)),
        }


def dci_of_importance(importance: NDArray[np.float64]) -> tuple[float, float]:
    """Disentanglement and completeness of an importance matrix (K, F), not negative; the first is NaN for one factor."""
    total = max(importance.sum(), 1e-12)
    disentanglement = sum(row.sum() / total * (1 - _entropy(row)) for row in importance)
    completeness = np.mean([1 - _entropy(column) for column in importance.T])
    return float(disentanglement) if importance.shape[1] > 1 else math.nan, float(completeness)


def is_kind(values: NDArray[np.float64]) -> bool:
    """Return whether a factor is categorical: whole numbers, not too many of them."""
    return bool((values == np.floor(values)).all()) and len(np.unique(values)) <= MAX_KINDS


def is_continuous(values: NDArray[np.float64]) -> bool:
    """Return whether a factor needs bins: its values are not whole numbers, and hardly one of them occurs twice."""
    return bool((values != np.floor(values)).any()) and len(np.unique(values)) > len(values) / 10


def _entropy(weights: NDArray[np.float64]) -> float:
    """Entropy of weights as shares, to the base of their number: 0 if one has all, 1 if all are equal, or all are 0."""
    if len(weights) == 1 or weights.sum() <= 0:
        return float(len(weights) > 1)
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(len(weights)))


def _binned(values: NDArray[np.float64], num_bins: int) -> NDArray[np.int64]:
    """Numbers of bins of equal width, as the histogram of disentanglement_lib cuts them."""
    return np.digitize(values, np.histogram(values, num_bins)[1][:-1])
