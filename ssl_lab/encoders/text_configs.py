"""Configurations of text transformers: new ones of each architecture, and those of published models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import transformers
from transformers import AutoConfig, BertConfig, GPT2Config, ModernBertConfig, RobertaConfig, T5Config

from ssl_lab.modalities.text import TextSpec

Objective: TypeAlias = Literal["masked", "causal", "denoising"]

SIZES = {"tiny": (2, 128, 2), "nano": (4, 128, 4), "mini": (4, 256, 4), "small": (4, 512, 8), "base": (12, 768, 12)}
"""Layers, width and attention heads, for all architectures: those of the BERT miniatures (Turc et al., 2019,
arXiv:1908.08962), and ``nano``, which nanoGPT trains on a CPU."""

NUM_SENTINELS = 100  # T5's extra ids
NUM_POSITIONS = 512  # at least, so that a model can be tuned on longer texts than it was trained on

_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # these count positions from padding_idx + 1 on


def new_config(spec: TextSpec, architecture: str, size: str, dropout: float) -> Any:
    """The configuration of a new model for a data set.

    The vocabulary is padded to a multiple of 64, which is faster on a GPU; T5's has room for :data:`NUM_SENTINELS` extra
    ids after those of the data.

    Raises:
        ValueError: If there is no such architecture or size.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"There is no architecture {architecture!r}. Choose encoder.architecture from {sorted(ARCHITECTURES)}."
        )
    if size not in SIZES:
        raise ValueError(f"There is no size {size!r}. Choose encoder.size from {sorted(SIZES)}.")
    return ARCHITECTURES[architecture](spec, *SIZES[size], dropout)


def load_config(name: str) -> Any:
    """The configuration of a published model.

    Raises:
        ValueError: If there is none in that folder and the hub has none, or cannot be reached.
    """
    transformers.logging.set_verbosity_error()
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise ValueError(
            f"No pretrained model at {name!r}: it is neither a local folder with a config.json nor a hub name that can "
            "be reached from here. Give encoder.pretrained the path of a downloaded model."
        ) from error


def objective_of(config: Any) -> Objective:
    """Return the pretraining objective of a model of this configuration."""
    return {"gpt2": "causal", "t5": "denoising"}.get(config.model_type, "masked")  # type: ignore[return-value]


def max_length_of(config: Any) -> int | None:
    """The longest text a model of this configuration can read, in tokens; None if there is no limit."""
    if config.model_type == "t5":
        return None  # its positions are relative
    return int(config.max_position_embeddings) - first_position_of(config)


def first_position_of(config: Any) -> int:
    """The position id of the first token."""
    return config.pad_token_id + 1 if config.model_type in _OFFSET_POSITIONS else 0


def _bert(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> BertConfig:
    return BertConfig(**_bert_like(spec, layers, width, heads, dropout))


def _roberta(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> RobertaConfig:
    settings = _bert_like(spec, layers, width, heads, dropout)
    settings["max_position_embeddings"] += settings["pad_token_id"] + 1
    return RobertaConfig(**settings, type_vocab_size=1, bos_token_id=None, eos_token_id=spec.eos_id)


def _bert_like(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> dict[str, Any]:
    return {
        "vocab_size": _padded(spec),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": max(NUM_POSITIONS, spec.length),
        "pad_token_id": spec.pad_id,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _modernbert(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> ModernBertConfig:
    return ModernBertConfig(
        vocab_size=_padded(spec),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=3 * width // 2,  # of gated units, as ModernBERT-base's 1152 for 768
        max_position_embeddings=max(8192, spec.length),
        pad_token_id=spec.pad_id,
        bos_token_id=None,
        eos_token_id=spec.eos_id,
        cls_token_id=None,
        sep_token_id=None,
        embedding_dropout=dropout,
        mlp_dropout=dropout,
        attention_dropout=dropout,
    )


def _gpt2(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> GPT2Config:
    return GPT2Config(
        vocab_size=_padded(spec),
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=max(NUM_POSITIONS, spec.length),
        bos_token_id=spec.eos_id,
        eos_token_id=spec.eos_id,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )


def _t5(spec: TextSpec, layers: int, width: int, heads: int, dropout: float) -> T5Config:
    settings = {
        "vocab_size": _padded(spec, NUM_SENTINELS),
        "d_model": width,
        "d_kv": width // heads,
        "d_ff": 4 * width,
        "num_layers": layers,
        "num_heads": heads,
        "dropout_rate": dropout,
        "pad_token_id": spec.pad_id,
        "eos_token_id": spec.eos_id,
        "decoder_start_token_id": spec.pad_id,
    }
    return T5Config(**settings)  # type: ignore[arg-type]


def _padded(spec: TextSpec, num_extra: int = 0) -> int:
    return -(-(spec.vocab_size + num_extra) // 64) * 64


ARCHITECTURES: dict[str, Callable[[TextSpec, int, int, int, float], Any]] = {
    "bert": _bert,
    "roberta": _roberta,
    "modernbert": _modernbert,
    "gpt2": _gpt2,
    "t5": _t5,
}
