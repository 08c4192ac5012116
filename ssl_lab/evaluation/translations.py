"""Translations against those of people."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.data.text.parallel_text import ParallelText
from ssl_lab.evaluation.metrics import TRANSLATIONS_METRICS
from ssl_lab.evaluation.protocol import Protocol, check_none_broken, outputs_of
from ssl_lab.types import Batch


class Translations(Protocol):
    """BLEU and chrF of the whole split by sacreBLEU, on text without tokens, with one reference a sentence.

    Metrics: ``finetune/bleu``, ``finetune/chrf``, from 0 to 100 as they are usually written. ``signature`` says how they were
    computed once they were.

    References:
        Post, A Call for Clarity in Reporting BLEU Scores (2018). arXiv:1804.08771
        Popovic, chrF: character n-gram F-score for automatic MT evaluation (2015). aclanthology.org/W15-3049
    """

    metrics = TRANSLATIONS_METRICS
    needs: ClassVar[str] = "translations"
    needs_columns: ClassVar[tuple[str, ...]] = ("target_input_ids",)
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the token ids ``fn(batch) -> (B, T)``; -1 is that of scores that are not finite.

        Raises:
            ValueError: If a translation has such scores.
        """
        assert isinstance(datamodule, ParallelText)
        (ids,) = outputs_of(lambda batch: (fn(batch),), datamodule, split, device=device)
        check_none_broken(int((ids < 0).any(1).sum()), len(ids), split, what="Scores", unit="translations")
        texts = [text.strip() for text in datamodule.target_tokenizer.batch_decode(ids, skip_special_tokens=True)]
        references = [datamodule.references(split)]
        bleu, chrf = BLEU(), CHRF()
        found = {
            "finetune/bleu": float(bleu.corpus_score(texts, references).score),
            "finetune/chrf": float(chrf.corpus_score(texts, references).score),
        }
        self.signature = f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}"
        return found
