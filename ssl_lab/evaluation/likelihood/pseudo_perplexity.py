"""Pseudo-perplexity of unseen sentences under a masked language model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import float64_device, wide
from ssl_lab.evaluation.likelihood.metrics import PSEUDO_PERPLEXITY_METRICS
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import eligible_tokens
from ssl_lab.types import Batch


class PseudoPerplexity(Protocol):
    r"""Pseudo-perplexity: each token is hidden in turn and predicted from all others.

    .. math:: \mathrm{PPPL} = \exp\Big(-\frac{1}{N} \sum_{s} \sum_{t} \log p(x_{s,t} \mid x_{s, \setminus t})\Big)

    over the N ordinary tokens of the sentences s. It is the perplexity of no distribution, and lower than that of a causal
    model, since a token is seen from both sides; tokens of one word are seen too. A sentence of n tokens takes n forward
    passes, batched by ``data.eval_batch_size``.

    Metrics: ``pseudo_perplexity/perplexity`` (cut at exp(50)) and ``pseudo_perplexity/loss`` in nats per token, sums in fp64.

    Args:
        num_sentences: Rows that are scored, evenly spread over the split; None for all.

    Raises:
        ValueError: If ``num_sentences`` is not positive.

    References:
        Salazar et al., Masked Language Model Scoring (2020), section 2. arXiv:1910.14659
    """

    metrics = PSEUDO_PERPLEXITY_METRICS
    needs: ClassVar[str] = "predict_masked"

    def __init__(self, *, num_sentences: int | None = 100) -> None:
        if num_sentences is not None and num_sentences < 1:
            raise ValueError(
                f"num_sentences must be positive, found {num_sentences}. Set it to null for all sentences."
            )
        self.num_sentences = num_sentences

    @torch.no_grad()
    def run(
        self, fn: Callable[..., Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score ``fn(input_ids, attention_mask, positions) -> logits (M, V)`` on each token of some sentences in turn.

        Where rows hold several documents, ``fn`` is given their ``document_ids`` as well.
        """
        spec = TextSpec.of(datamodule.spec, "Pseudo-perplexity")
        assert spec.mask_id is not None
        total, count = torch.zeros((), dtype=torch.float64, device=float64_device(device)), 0
        for batch in self._sentences(datamodule, split):
            ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            for places in eligible_tokens(ids, mask, spec).nonzero().split(datamodule.eval_batch_size):
                row, column = places.unbind(1)
                positions = F.one_hot(column, ids.shape[1]).bool()
                documents = [batch["document_ids"].to(device)[row]] if "document_ids" in batch else []
                logits = fn(ids[row].masked_fill(positions, spec.mask_id), mask[row], positions, *documents)
                total += wide(F.cross_entropy(logits.float(), ids[row, column], reduction="none")).sum()
                count += len(places)
        if count == 0:
            raise ValueError(
                f"Cannot score pseudo-perplexity on the {split} split: the scored sentences hold "
                "special tokens only. Check the text column and the tokenizer."
            )
        loss = float(total) / count
        return {"pseudo_perplexity/loss": loss, "pseudo_perplexity/perplexity": math.exp(min(loss, 50.0))}

    def _sentences(self, datamodule: DataModule, split: str) -> Iterator[Batch]:
        """The scored rows of each batch."""
        loader = datamodule.eval_dataloader(split)
        num_rows = loader.num_samples
        num_scored = num_rows if self.num_sentences is None else min(self.num_sentences, num_rows)
        scored = torch.arange(num_scored) * num_rows // num_scored
        for batch in loader:
            chosen = torch.isin(batch["index"].cpu(), scored)
            if chosen.any():
                yield {name: column[chosen.to(column.device)] for name, column in batch.items()}
