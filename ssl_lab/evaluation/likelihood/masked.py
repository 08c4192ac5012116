"""Evaluation of the prediction of masked tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import PRETRAIN, DataModule
from ssl_lab.devices import placed, wide
from ssl_lab.evaluation.likelihood.metrics import MASKED_PREDICTION_METRICS
from ssl_lab.evaluation.protocol import StreamingProtocol, check_none_broken
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import fixed_masks
from ssl_lab.types import Batch


class MaskedPrediction(StreamingProtocol):
    r"""Accuracy and masked perplexity on fixed masks, beside the unigram baseline.

    Masked perplexity is :math:`\exp` of the mean cross entropy in nats over all masked tokens of the split. It is not the
    perplexity of a language model: each token is seen with its context on both sides. The baseline predicts the
    frequencies of the training split (add-one smoothing) and is scored on the same masked tokens.

    Sums are kept in fp64 over single tokens, so batch sizes do not matter. Metrics: ``masked/loss`` in nats per masked
    token, ``masked/perplexity`` (cut at exp(50)), ``masked/accuracy``, ``masked/unigram_perplexity`` and
    ``masked/unigram_accuracy``, the share of the most frequent token.

    Args:
        mask_prob: Probability of masking a token.
        seed: Seed of the masks, which depend on it, the sample and the position alone.
    """

    metrics = MASKED_PREDICTION_METRICS
    needs: ClassVar[str] = "predict_masked"

    def __init__(self, *, mask_prob: float = 0.15, seed: int = 0) -> None:
        if not 0 < mask_prob < 1:
            raise ValueError(f"MaskedPrediction needs mask_prob in (0, 1), found {mask_prob}. BERT's is 0.15.")
        self.mask_prob = mask_prob
        self.seed = seed

    def prepare(
        self, fn: Callable[..., Tensor], datamodule: DataModule, *, device: torch.device
    ) -> tuple[TextSpec, Tensor]:
        """Facts of the text, and log frequencies of its tokens."""
        spec = TextSpec.of(datamodule.spec, "Masked prediction")
        return spec, _unigram(datamodule, spec, device)

    def update(self, fn: Callable[..., Tensor], batch: Batch, prepared: tuple[TextSpec, Tensor]) -> dict[str, Tensor]:
        """Score every masked token of the batch by ``fn(input_ids, attention_mask, positions) -> logits (M, V)``.

        Where rows hold several documents, ``fn`` is given their ``document_ids`` as well.
        """
        spec, log_frequency = prepared
        ids, mask, index = (batch[name] for name in ("input_ids", "attention_mask", "index"))
        corrupted, labels = fixed_masks(ids, mask, spec, index=index, seed=self.seed, mask_prob=self.mask_prob)
        chosen = labels != -100
        targets = labels[chosen]
        documents = [batch["document_ids"]] if "document_ids" in batch else []
        scores = fn(corrupted, mask, chosen, *documents).float()
        known = targets.to(log_frequency.device)
        return {
            "tokens": chosen.sum(),
            "broken": (~scores.isfinite().all(1)).sum(),
            "nats": wide(F.cross_entropy(scores, targets, reduction="none")).sum(),
            "right": (scores.argmax(1) == targets).sum(),
            "unigram_nats": -log_frequency[known].sum(),
            "unigram_right": (log_frequency.argmax() == known).sum(),
        }

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Means over the masked tokens.

        Raises:
            ValueError: If there are none, or a score is not finite.
        """
        count = int(sums["tokens"])
        if count == 0:
            raise ValueError(
                f"Cannot score masked prediction on the {split} split: it holds special tokens only. Check the "
                "text column and the tokenizer."
            )
        check_none_broken(int(sums["broken"]), count, split, what="Scores", unit="masked tokens")
        loss, unigram_loss = (float(sums[name] / count) for name in ("nats", "unigram_nats"))
        accuracy, unigram_accuracy = (int(sums[name]) / count for name in ("right", "unigram_right"))
        return {
            "masked/loss": loss,
            "masked/perplexity": math.exp(min(loss, 50.0)),
            "masked/accuracy": accuracy,
            "masked/unigram_perplexity": math.exp(unigram_loss),
            "masked/unigram_accuracy": unigram_accuracy,
        }


def _unigram(datamodule: DataModule, spec: TextSpec, device: torch.device) -> Tensor:
    """Log frequencies of ordinary tokens in the training split, fp64 (V,); specials get none."""
    counts = torch.ones(spec.vocab_size, dtype=torch.float64)
    for batch in datamodule.eval_dataloader(PRETRAIN):
        counts += torch.bincount(batch["input_ids"].flatten().cpu(), minlength=spec.vocab_size)
    counts[list(spec.special_ids)] = 0
    return placed(torch.log(counts / counts.sum()), device)
