"""What a linear classifier reaches on the raw input of a task of classes: a number that an encoder should pass."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.probes.linear import HOLDOUT_SHARE, LinearProbe
from ssl_lab.evaluation.probes.scores import classification_scores
from ssl_lab.evaluation.protocol import extract
from ssl_lab.modalities.text import TextSpec

_MOST_PIXELS = 10_000
"""Samples that pixels are fitted to: all 50,000 images of CIFAR-10 would take minutes."""
_STRENGTHS = (1.0, 10.0, 100.0)  # inverse penalties that are tried


def score_raw_input(datamodule: DataModule) -> dict[str, Any] | None:
    """Score logistic regression on raw input on the test split, by the metrics of fine-tuning.

    Texts are counts of tokens, weighted by how rare the tokens are (TF-IDF); other data are what
    :meth:`~ssl_lab.types.Spec.raw` makes of them. The penalty is chosen on a fifth of the training samples.

    Args:
        datamodule: The data.

    Returns:
        ``name`` and ``metrics`` of a row; None without labels, or with fewer than two classes in train.
    """
    spec = datamodule.spec
    if spec.num_classes is None or not datamodule.labelled:
        return None
    if isinstance(spec, TextSpec):
        (train, y), (test, test_y) = (_counts(datamodule, spec, split) for split in ("train", "test"))
        if len(np.unique(y)) < 2 or len(test_y) == 0:
            return None
        predicted = torch.from_numpy(_predict(train, y, test))
        truth = torch.from_numpy(test_y)
    else:
        features = extract(spec.raw, datamodule, device=torch.device("cpu"), max_train_samples=_MOST_PIXELS)
        if len(features.train_y.unique()) < 2 or len(features.test_y) == 0:
            return None
        predicted, truth = LinearProbe().predict(features), features.test_y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a split with one class, the task itself warns
        scores = classification_scores("finetune", predicted, truth, spec.num_classes)
    metrics = {name.replace("top1", "accuracy"): each for name, each in scores.items()}
    return {"name": f"{spec.raw_name} + linear", "metrics": metrics}


def _counts(datamodule: DataModule, spec: TextSpec, split: str) -> tuple[Any, NDArray[np.int64]]:
    """Counts of tokens, sparse (N, V), and labels (N,) of the labelled samples of a split."""
    from scipy.sparse import csr_matrix, vstack

    special = torch.tensor([*spec.special_ids, spec.pad_id if spec.pad_id is not None else -1])
    parts: list[Any] = []
    labels: list[Tensor] = []
    for batch in datamodule.eval_dataloader(split):
        known = batch["label"] >= 0
        ids, mask = batch["input_ids"][known], batch["attention_mask"][known].bool()
        mask &= ~torch.isin(ids, special)
        rows, places = mask.nonzero(as_tuple=True)
        counted = (np.ones(len(rows), np.float32), (rows.numpy(), ids[rows, places].numpy()))
        parts.append(csr_matrix(counted, shape=(len(ids), spec.vocab_size)))
        labels.append(batch["label"][known])
    return vstack(parts, format="csr"), torch.cat(labels).numpy()


def _predict(train: Any, y: NDArray[np.int64], test: Any) -> NDArray[np.int64]:
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    weigh = TfidfTransformer(sublinear_tf=True).fit(train)
    x, scored = weigh.transform(train), weigh.transform(test)
    order = np.random.default_rng(0).permutation(len(y))
    held, kept = np.split(order, [max(1, int(HOLDOUT_SHARE * len(y)))])

    def fitted(strength: float, rows: NDArray[np.int64]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that end at the largest number of iterations
            return LogisticRegression(C=strength, max_iter=300).fit(x[rows], y[rows])

    best = _STRENGTHS[1]
    if len(np.unique(y[kept])) > 1:
        best = max(_STRENGTHS, key=lambda strength: fitted(strength, kept).score(x[held], y[held]))
    found: NDArray[np.int64] = fitted(best, order).predict(scored)
    return found
