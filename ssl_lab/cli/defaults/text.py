"""Tokenizer, network, batch, length and evaluation of methods of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults.facts import Choice, Facts
from ssl_lab.modalities.text import TextSpec

_TRANSFORMER = "ssl_lab.encoders.text_transformer.TextTransformer"
_CAUSAL = "ssl_lab.methods.causal_lm.CausalLM"
_TINY = {"bert": "bert_tiny", "gpt2": "gpt2_nano", "t5": "t5_tiny"}
_WORK = {"tiny": 1.0, "nano": 2.0, "mini": 8.0, "small": 32.0, "base": 216.0}
"""Layers times squared width, in units of the smallest."""
_BATCH = 32
_TOKENS = 4e6
"""Tokens that BERT-tiny reads in 100 to 200 CPU seconds, forward and backward: 40 us each on a busy core of 2023."""
_EPOCHS = 100  # of conf/trainer/default.yaml, and at most
_PER_PIECE = 100  # tokens of the data for each entry of the vocabulary
_SIZES = range(1024, 8193)


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Tokenizer, network, batch, length and evaluation that suit texts."""
    if not isinstance(facts.spec, TextSpec):
        return
    yield from _tokenizer(facts, cfg)
    if "masking" in cfg.method and facts.labelled:
        yield Choice("evaluation=mlm_features", "labelled texts")
    if facts.device == "cpu" and cfg.encoder.get("_target_") == _TRANSFORMER:
        yield from _on_cpu(facts, cfg)


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Epochs that take some minutes, where the command gives no number of them; evaluated twice."""
    whole = cfg.trainer.max_epochs == _EPOCHS and cfg.trainer.max_steps == -1
    is_ours = facts.device == "cpu" and cfg.encoder.get("_target_") == _TRANSFORMER
    if whole and is_ours and facts.num_tokens is not None:
        passes = 2 if "temperature" in cfg.method else 1
        epochs = num_epochs(facts.num_tokens * passes, str(cfg.encoder.get("size")))
        yield Choice(f"trainer.max_epochs={epochs}", _amount(facts))
        yield Choice(f"evaluate_every_n_epochs={math.ceil(epochs / 2)}", f"{epochs} epochs")


def _tokenizer(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """A tokenizer that is trained on the texts: its kind by the method, as in the experiments, its size by theirs."""
    if cfg.data.get("tokenizer", "") is not None or "vocab_size" not in cfg.data:
        return
    if cfg.method._target_ == _CAUSAL:
        for setting in ("data.tokenizer_kind=bpe", "data.framing=causal"):
            yield Choice(setting, "each token is predicted from those before it")
        if "packing" in cfg.data and not facts.labelled:
            yield Choice("data.packing=true", "each token is predicted from those before it")
    elif "noise_density" in cfg.method:
        yield Choice("data.tokenizer_kind=unigram", "spans are cut out")
    if facts.num_tokens is not None and (size := vocab_size(facts.num_tokens)) < cfg.data.vocab_size:
        yield Choice(f"data.vocab_size={size}", _amount(facts))


def _on_cpu(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """The smallest encoder, and small batches: steps are what a short run lacks."""
    architecture, size = cfg.encoder.get("architecture"), cfg.encoder.get("size")
    if architecture in _TINY and size == "mini":
        yield Choice(f"encoder={_TINY[architecture]}", "CPU")
    if "batch_size" in cfg.data:
        yield Choice(f"data.batch_size={max(1, min(_BATCH, facts.num_samples))}", "CPU")


def vocab_size(num_tokens: int) -> int:
    """Entries that occur a hundred times on average, as a power of two: rarer ones are hardly learned."""
    size: int = 2 ** max(0, math.ceil(math.log2(max(num_tokens, 1) / _PER_PIECE)))
    return min(max(size, _SIZES[0]), _SIZES[-1])


def num_epochs(num_tokens: int, size: str) -> int:
    """Epochs of some minutes for an encoder of this size, from 1 to 100."""
    return min(max(round(_TOKENS / _WORK.get(size, 1.0) / max(num_tokens, 1)), 1), _EPOCHS)


def _amount(facts: Facts) -> str:
    return f"{facts.num_tokens:,} tokens" + (" on a CPU" if facts.device == "cpu" else "")
