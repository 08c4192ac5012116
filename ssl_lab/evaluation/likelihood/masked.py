"""How well masked tokens are predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import PRETRAIN, DataModule
from ssl_lab.evaluation.likelihood.metrics import MASKED_PREDICTION_METRICS
from ssl_lab.evaluation.protocol import Protocol, check_none_broken
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import fixed_masks


class MaskedPrediction(Protocol):
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

    @torch.no_grad()
    def run(
        self,
        fn: Callable[..., Tensor],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Score every masked token of the split by ``fn(input_ids, attention_mask, positions) -> logits (M, V)``.

        Where rows hold several documents, ``fn`` is given their ``document_ids`` as well.
        """
        spec = TextSpec.of(datamodule.spec, "Masked prediction")
        log_frequency = _unigram(datamodule, spec, device)
        totals = torch.zeros(4, dtype=torch.float64, device=device)
        broken = torch.zeros((), dtype=torch.int64, device=device)
        count = 0
        for batch in datamodule.eval_dataloader(split):
            ids, mask, index = (batch[name].to(device) for name in ("input_ids", "attention_mask", "index"))
            corrupted, labels = fixed_masks(ids, mask, spec, index=index, seed=self.seed, mask_prob=self.mask_prob)
            chosen = labels != -100
            targets = labels[chosen]
            documents = [batch["document_ids"].to(device)] if "document_ids" in batch else []
            scores = fn(corrupted, mask, chosen, *documents).float()
            totals += torch.stack(
                [
                    F.cross_entropy(scores, targets, reduction="none").double().sum(),
                    (scores.argmax(1) == targets).double().sum(),
                    -log_frequency[targets].sum(),
                    (log_frequency.argmax() == targets).double().sum(),
                ]
            )
            broken += (~scores.isfinite().all(1)).sum()
            count += len(targets)
        if count == 0:
            raise ValueError(
                f"Cannot score masked prediction on the {split} split: it holds special tokens only. Check the "
                "text column and the tokenizer."
            )
        check_none_broken(int(broken), count, split, what="Scores", unit="masked tokens")
        loss, accuracy, unigram_loss, unigram_accuracy = (totals / count).tolist()
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
    return torch.log(counts / counts.sum()).to(device)
