"""Evaluation of a causal language model on unseen text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import PRETRAIN
from ssl_lab.devices import placed, wide
from ssl_lab.evaluation.likelihood.metrics import LANGUAGE_MODELLING_METRICS
from ssl_lab.evaluation.protocol import StreamingProtocol
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch

MAX_LOG = 50.0  # perplexities are cut at exp(50)


class LanguageModelling(StreamingProtocol):
    r"""Perplexity per token, per word and per byte, and bits per byte.

    With :math:`\ell` the mean cross entropy in nats over the predicted tokens of the split,

    .. math:: \mathrm{ppl} = e^{\ell}, \quad \mathrm{ppl}_\mathrm{word} = e^{\ell T / W}, \quad
        \mathrm{ppl}_\mathrm{byte} = e^{\ell T / B}, \quad \mathrm{bits\ per\ byte} = \frac{\ell T}{B \ln 2}

    where T counts the tokens of the split, W the words between white space and B the bytes in UTF-8 of its raw text.
    Perplexity per token compares models with one tokenizer only; the others compare any. A token with nothing before it, the
    first of a row, is not predicted; it counts in T, as if it cost as much as the others, unless it is a special token.
    Of text that was normalised or has unknown tokens, fewer bits are needed than of the raw text.

    Sums are kept in fp64, so batch sizes do not matter. Metrics: ``language_modelling/loss`` in nats per token,
    ``language_modelling/perplexity``, ``language_modelling/unigram_perplexity`` of the frequencies of tokens in the
    training split (add-one smoothing), and of unlabelled text ``language_modelling/word_perplexity``,
    ``language_modelling/byte_perplexity`` and ``language_modelling/bits_per_byte``. Labelled texts may be cut, so
    that their words and bytes are not those the model sees.

    References:
        Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 3.1.
    """

    metrics = LANGUAGE_MODELLING_METRICS
    needs: ClassVar[str] = "token_losses"

    def prepare(
        self, fn: Callable[[Batch], tuple[Tensor, Tensor]], datamodule: Any, *, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Log frequencies of tokens, and the special ones."""
        spec = TextSpec.of(datamodule.spec, "Language modelling")
        return _unigram(datamodule, spec, device), torch.tensor(spec.special_ids, device=device)

    def update(
        self, fn: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch, prepared: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Sum ``fn(batch) -> (nats, predicted)``, both (B, L - 1) for all tokens but the first of a row."""
        log_frequency, special = prepared
        losses, predicted = fn(batch)
        ids, real = batch["input_ids"], batch["attention_mask"] == 1
        unpredicted = real & ~torch.cat([torch.zeros_like(real[:, :1]), predicted], dim=1)
        return {
            "nats": wide(losses[predicted]).sum(),
            "unigram_nats": -log_frequency[ids[:, 1:][predicted].to(log_frequency.device)].sum(),
            "predicted": predicted.sum(),
            "first": (unpredicted & ~torch.isin(ids, special)).sum(),
        }

    def compute(self, sums: Mapping[str, Tensor], datamodule: Any, split: str) -> dict[str, float]:
        """Perplexities of the sums, and of unlabelled text bits for its words and bytes.

        Raises:
            ValueError: If no token is predicted.
        """
        num_predicted, num_first = int(sums["predicted"]), int(sums["first"])
        if num_predicted == 0:
            raise ValueError(
                f"Cannot score language modelling on the {split} split: none of its rows has two tokens. Check the text "
                "column and data.max_length."
            )
        loss, unigram_loss = (float(sums[name] / num_predicted) for name in ("nats", "unigram_nats"))
        metrics = {"loss": loss, "perplexity": _exp(loss), "unigram_perplexity": _exp(unigram_loss)}
        if "label" not in datamodule.columns(split):
            text = datamodule.text_counts(split)
            nats = loss * (num_predicted + num_first)
            metrics["word_perplexity"] = _exp(nats / text.num_words)
            metrics["byte_perplexity"] = _exp(nats / text.num_bytes)
            metrics["bits_per_byte"] = nats / text.num_bytes / math.log(2)
        return {f"language_modelling/{name}": value for name, value in metrics.items()}


def _exp(nats: float) -> float:
    return math.exp(min(nats, MAX_LOG))


def _unigram(datamodule: Any, spec: TextSpec, device: torch.device) -> Tensor:
    """Log frequencies of tokens in the training split, fp64 (V,)."""
    counts = torch.ones(spec.vocab_size, dtype=torch.float64)
    for batch in datamodule.eval_dataloader(PRETRAIN):
        real = batch["input_ids"][batch["attention_mask"] == 1]
        counts += torch.bincount(real.cpu(), minlength=len(counts))
    return placed(torch.log(counts / counts.sum()), device)
