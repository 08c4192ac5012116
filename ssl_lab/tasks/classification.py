"""Classes of samples of any modality: head, loss, and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.evaluation.probes.scores import class_counts, scores_of_counts
from ssl_lab.evaluation.protocol import StreamingProtocol, check_finite, check_none_broken, outputs_of
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Augmentation
from ssl_lab.pretext.mixing import Mixing
from ssl_lab.tasks.average import WeightAverage
from ssl_lab.tasks.base import FineTuning, full_precision
from ssl_lab.tasks.drop_path import set_drop_path
from ssl_lab.tasks.metrics import CLASSES_METRICS
from ssl_lab.types import Batch, Encoder

_FROM_CLASSES = 10  # below, five guesses say little


class Classification(FineTuning):
    r"""A linear layer on an encoder's features, trained with cross entropy; rows without a label are left out.

    .. math:: L = -\frac1N \sum_i \sum_k q_{ik} \log p_k(x_i), \qquad
              q_{ik} = (1 - \epsilon)\,t_{ik} + \frac{\epsilon}{K}

    over N labelled samples, where t is 1 for the right one of K classes, or a mixture of two after MixUp and CutMix, and
    :math:`\epsilon` is ``label_smoothing``. A mixture counts by the share of it that has a label.

    With the encoder frozen and everything else off this is linear evaluation.

    Args:
        encoder: Encoder of the samples.
        optim: Optimizer and schedule.
        augment: Changes the samples of a training step at random; None for none.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Before the last layer of the head.
        label_smoothing: epsilon.
        mixup_alpha: Parameter of MixUp's beta distribution; 0 for no MixUp.
        cutmix_alpha: The same of CutMix; with both, each step draws one of them.
        drop_path: Probability of leaving out the last block's branches, less in those before; see :func:`set_drop_path`.
        ema_decay: Decay of a moving average of all weights, which is evaluated and exported instead of them; 0 for none.

    Raises:
        ValueError: If the data has no classes, a setting makes no sense, or the encoder does not read what is augmented.

    References:
        Chen et al., SimCLR (2020), appendix B. arXiv:2002.05709
        He et al., Masked Autoencoders Are Scalable Vision Learners (2021), appendix A. arXiv:2111.06377
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("label",)
    columns_from: ClassVar[Mapping[str, str]] = {"label": "data with labels (data.label_column)"}
    source_of_classes: ClassVar[str] = "Set data.label_column, choose data with labels"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        augment: Augmentation | None = None,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        drop_path: float = 0.0,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        num_classes = encoder.spec.num_classes
        assert num_classes is not None
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"Cannot use method.label_smoothing={label_smoothing}: it is a share. Choose 0 to below 1."
            )
        mixing = Mixing(num_classes, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
        for part in (augment, mixing if mixing.transforms else None):
            if part is not None and part.column not in encoder.spec.columns:
                raise ValueError(
                    f"Cannot augment with {type(part).__name__}: it changes the column {part.column!r}, but "
                    f"{type(encoder).__name__} reads {encoder.spec.kind}. Leave it out, or choose another task=: see "
                    "ssl-lab list tasks."
                )
        if drop_path and self.encoder_is_frozen:
            raise ValueError(
                f"method.drop_path={drop_path} has no effect with method.freeze={freeze}: a frozen encoder takes all of its "
                "branches. Leave one of them out."
            )
        if drop_path:
            set_drop_path(encoder, drop_path)
        self.augment = augment
        self.mixing = mixing
        self.label_smoothing = label_smoothing
        self.head = self.make_head(encoder.embed_dim, num_classes, dropout)
        self.average = WeightAverage(encoder, self.head, decay=ema_decay) if ema_decay else None

    def make_head(self, dim: int, num_classes: int, dropout: float) -> nn.Module:
        """Build the head that turns features (B, D) into scores (B, C)."""
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, num_classes))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, encode, classify."""
        if self.augment is not None:
            batch = self.augment(batch)
        if not self.mixing.transforms:
            labels, count = batch["label"], (batch["label"] >= 0).sum()
        else:
            batch, labels = self.mixing(batch)
            count = labels.sum()
        return self.mean_over_targets(self.total_loss(full_precision(self.logits(batch)), labels), count)

    def total_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy of scores (B, C).

        Args:
            logits: The scores.
            labels: Classes, int64 (B,), -1 where unknown; or shares of them (B, C) whose sum is the known part of a row.
        """
        if labels.ndim == 1:
            return F.cross_entropy(
                logits, labels, ignore_index=-1, reduction="sum", label_smoothing=self.label_smoothing
            )
        known = labels.sum(1, keepdim=True)
        smoothed = (1 - self.label_smoothing) * labels + self.label_smoothing * known / labels.shape[1]
        return F.cross_entropy(logits, smoothed.to(logits.dtype), reduction="sum")

    def logits(self, batch: Batch) -> Tensor:
        """Scores (B, C) of the classes."""
        return self.head(self.pooled(self.encoder, batch))  # type: ignore[no-any-return]

    def pooled(self, encoder: Encoder, batch: Batch) -> Tensor:
        """Compute the input of the head for a batch: the features (B, D) of an encoder."""
        return encoder.embed(batch)

    def after_step(self) -> None:
        """Move the average of the weights."""
        if self.average is not None:
            self.average.follow(self.encoder, self.head, self.global_step)

    @property
    def feature_encoder(self) -> Encoder:
        """The encoder, with the averaged weights where there are any."""
        return self.encoder if self.average is None else self.average.encoder

    def class_logits(self, batch: Batch) -> Tensor:
        """Scores (B, C) by the weights that are judged."""
        head = self.head if self.average is None else self.average.head
        return head(self.pooled(self.feature_encoder, batch))  # type: ignore[no-any-return]

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores of the classes (B, C), by the weights that are evaluated."""
        return self.class_logits(batch)

    def score_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.encoder.spec.class_names or tuple(map(str, range(self.encoder.spec.num_classes or 0)))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and scores of classes."""
        return {**super().capabilities(), "class_logits": self.in_eval_mode(torch.no_grad()(self.class_logits))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """The most probable class, its probability, and those of all classes."""
        scores = self.capabilities()["class_logits"]
        (logits,) = outputs_of(lambda batch: (full_precision(scores(batch)),), datamodule, GIVEN, device=device)
        check_finite(logits, what="Scores", use="written")
        names = self.score_names()
        shares = logits.softmax(1)
        best = shares.max(1)
        return [
            {"prediction": names[k], "probability": share, "probabilities": dict(zip(names, each, strict=True))}
            for k, share, each in zip(best.indices.tolist(), best.values.tolist(), shares.tolist(), strict=True)
        ]


class ClassScores(StreamingProtocol):
    """Accuracy, macro recall, macro F1, and from ten classes on top-5 accuracy of predictions for all labelled samples.

    Metrics: ``finetune/accuracy``, ``finetune/recall``, ``finetune/macro_f1``, ``finetune/top5``, all in [0, 1].
    """

    metrics = CLASSES_METRICS
    needs: ClassVar[str] = "class_logits"
    needs_labels: ClassVar[bool] = True

    def prepare(self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device) -> int:
        """Number of classes."""
        num_classes = datamodule.spec.num_classes
        assert num_classes is not None
        return num_classes

    def update(self, fn: Callable[[Batch], Tensor], batch: Batch, prepared: int) -> dict[str, Tensor]:
        """Count by the largest of the scores ``fn(batch) -> (B, C)``."""
        logits, y = fn(batch), batch["label"]
        known = y >= 0
        best = logits.topk(min(5, logits.shape[1])).indices[known]
        return {
            "rows": torch.tensor(len(y)),
            "broken": (~logits.isfinite().all(1)).sum(),
            "classes": class_counts(logits.argmax(1)[known], y[known], prepared),
            "among_five": (best == y[known].unsqueeze(1)).any(1).sum(),
        }

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Scores of the counts.

        Raises:
            ValueError: If a score is not finite, or no row has a label.
        """
        num_rows, counts = int(sums["rows"]), sums["classes"]
        check_none_broken(int(sums["broken"]), num_rows, split, what="Scores")
        num_known = int(counts[2].sum())
        if num_known == 0:
            raise ValueError(
                f"Cannot score classes on the {split} split: none of its {num_rows} rows has a label. Score another "
                "split, or set data.label_column."
            )
        found = scores_of_counts("finetune", counts)
        scores = {name.replace("top1", "accuracy"): value for name, value in found.items()}
        if counts.shape[1] >= _FROM_CLASSES:
            given = not math.isnan(scores["finetune/accuracy"])
            scores["finetune/top5"] = int(sums["among_five"]) / num_known if given else math.nan
        return scores
