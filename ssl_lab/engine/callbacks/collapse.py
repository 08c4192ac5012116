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
from ssl_lab.engine.callbacks.progress import say
from ssl_lab.engine.steps import log_interval, steps_done
from ssl_lab.evaluation.geometry.label_free import effective_rank, normalised_std
from ssl_lab.evaluation.protocol import unit_rows
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch

MIN_STD = 0.02  # untrained encoders on real data have 0.15 and more
MIN_RANK = 1.1  # two tight clusters have 1.4 and more
APART_STD, APART_RANK = 0.03, 1.2  # features are apart again, and do not waver about the bounds
_STATE = ("collapsed_at", "found", "_warned", "_withdrawn")
MIN_SAMPLES = 8  # two samples always lie on a line


class CollapseAlarm(Callback):
    r"""Logs spread and effective rank of the features of training batches, and warns if they collapse.

    Metrics: ``train/feature_std``, and ``train/feature_rank`` of up to 64 samples about their mean.

    Collapse is either complete, one feature vector for all samples (the deviation of normalised features falls below
    ``MIN_STD`` :math:`/\sqrt{D}`), or leaves a single direction (their effective rank falls below ``MIN_RANK``). The loss
    need not show it: a constant encoder is a perfect solution of many objectives. Where it is none
    (``Method.may_collapse``), and while a method still learns what needs no features (``Method.alike_at_first``), nothing is
    said. The method says what to change. A line reports it when features recover. Each is said once in a run,
    however often it is resumed.

    Every logging interval it looks at features that the step has computed anyway.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning (2020), section 4.1. arXiv:2011.10566
        Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning (2022). arXiv:2110.09348
    """

    def __init__(self) -> None:
        self.collapsed_at: int | None = None
        """Step since which features are collapsed; None if they are not."""
        self.found = ""
        """How they were found then, as the end of a sentence."""
        self._warned = self._withdrawn = False

    def state_dict(self) -> dict[str, Any]:
        """What was found and said."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        for name in _STATE:
            setattr(self, name, state_dict[name])

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
        if trainer.is_global_zero and pl_module.may_collapse and pl_module.progress() >= pl_module.alike_at_first:
            self._judge(trainer, pl_module, float(std), rank)

    def _judge(self, trainer: L.Trainer, method: Method, std: float, rank: float) -> None:
        step = steps_done(trainer)
        if self.collapsed_at is not None and std >= APART_STD and rank >= APART_RANK:
            if not self._withdrawn:
                say(trainer, f"Features have recovered at step {step}: spread {std:.2g}, effective rank {rank:.2f}.")
            self.collapsed_at, self._withdrawn = None, True
        elif self.collapsed_at is None and (found := _collapse(std, rank)):
            self.collapsed_at, self.found = step, found
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"Features have collapsed: at step {step} {found}, however low the loss is. {method.collapse_advice} "
                    "train/feature_std shows when it began, and a line tells if they recover.",
                    stacklevel=2,
                )


def _collapse(std: float, rank: float) -> str:
    """How features have collapsed, as the end of a sentence; empty if they have not."""
    if std < MIN_STD:
        return f"all samples of a batch have nearly the same features (spread {std:.2g}, where 1 is even and 0 is none)"
    if rank < MIN_RANK:
        return f"the features of a batch differ along a single direction (effective rank {rank:.2f})"
    return ""


def rank_of_differences(features: Tensor, *, num_samples: int = 64) -> float:
    """Effective rank, as RankMe's, of normalised features (N, D) about their mean, estimated on the first samples.

    A few samples are enough to tell one direction from several, and keep the decomposition off the device.
    """
    x = unit_rows(features[:num_samples].float())
    x = wide(x - x.mean(0))
    eigenvalues = torch.linalg.eigvalsh((x @ x.T).cpu())
    return float(effective_rank(eigenvalues.clamp(min=0).sqrt()))
