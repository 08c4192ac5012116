"""Notice collapse while it happens."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssl_lab.devices import wide
from ssl_lab.engine.callbacks.encoder_tap import EncoderTap
from ssl_lab.engine.steps import log_interval, steps_done
from ssl_lab.evaluation.geometry.label_free import effective_rank, normalised_std
from ssl_lab.evaluation.protocol import unit_rows
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch

MIN_STD = 0.02  # untrained encoders on real data have 0.15 and more
MIN_RANK = 1.1  # two tight clusters have 1.4 and more
MIN_SAMPLES = 8  # two samples always lie on a line


class CollapseAlarm(Callback):
    r"""Logs spread and effective rank of the features of training batches, and warns once if they collapse.

    Metrics: ``train/feature_std``, and ``train/feature_rank`` of up to 64 samples about their mean.

    Collapse is either complete, one feature vector for all samples (the deviation of normalised features falls below
    ``MIN_STD`` :math:`/\sqrt{D}`), or leaves a single direction (their effective rank falls below ``MIN_RANK``). The loss
    need not show it: a constant encoder is a perfect solution of many objectives. Where it is none
    (``Method.may_collapse``), nothing is said.

    Every logging interval it looks at features that the step has computed anyway.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020), section 4.1. arXiv:2011.10566
        Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning (2022). arXiv:2110.09348
    """

    def __init__(self) -> None:
        self._warned = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to the encoder."""
        assert isinstance(pl_module, Method)
        self._tap = EncoderTap(pl_module.encoder)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop listening."""
        self._tap.remove()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Look every so often."""
        if steps_done(trainer) % log_interval(trainer):
            self._tap.forget()
            return
        features = self._tap.take()
        if features is None or len(features) < MIN_SAMPLES:
            return
        std, rank = normalised_std(features), rank_of_differences(features)
        pl_module.log_dict({"train/feature_std": std, "train/feature_rank": rank})
        assert isinstance(pl_module, Method)
        if trainer.is_global_zero and pl_module.may_collapse and not self._warned:
            self._warn(float(std), rank, steps_done(trainer))

    def _warn(self, std: float, rank: float, step: int) -> None:
        if std < MIN_STD:
            found = f"all samples of a batch have nearly the same features (spread {std:.2g}, where 1 is even and 0 is none)"
        elif rank < MIN_RANK:
            found = f"the features of a batch differ along a single direction (effective rank {rank:.2f})"
        else:
            return
        self._warned = True
        warnings.warn(
            f"Features have collapsed: at step {step} {found}, however low the loss is. Lower optim.lr, check that targets "
            "get no gradient (stop-gradient, teacher), or strengthen what keeps samples apart (negatives, variance term, "
            "centring). train/feature_std shows when it began.",
            stacklevel=2,
        )


def rank_of_differences(features: Tensor, *, num_samples: int = 64) -> float:
    """Effective rank, as RankMe's, of normalised features (N, D) about their mean, estimated on the first samples.

    A few samples are enough to tell one direction from several, and keep the decomposition off the device.
    """
    x = unit_rows(features[:num_samples].float())
    x = wide(x - x.mean(0))
    eigenvalues = torch.linalg.eigvalsh((x @ x.T).cpu())
    return float(effective_rank(eigenvalues.clamp(min=0).sqrt()))
