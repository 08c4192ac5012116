"""BERT-style text encoders from transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, BertConfig

from ssl_lab.types import Batch, DataSpec, Encoder

SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "base": (12, 768, 12)}
"""Layers, width and attention heads of the BERT miniatures (Turc et al., 2019, arXiv:1908.08962)."""

POOLINGS = ("mean", "first")


class TextTransformer(Encoder):
    """A bidirectional transformer; features are its last hidden states, pooled over the tokens of a text.

    Args:
        spec: The text data it is built for.
        size: A BERT built from a config: ``tiny``, ``mini``, ``small`` or ``base``. Ignored with ``pretrained``.
        pretrained: A local folder or hub name of a masked language model to start from.
        dropout: Dropout in attention and hidden layers of a new model.
        pooling: ``mean`` over real tokens, or ``first``: the state of the class token.

    Raises:
        ValueError: If the data is not text, the size or pooling is unknown, or the pretrained vocabulary or length does
            not fit.

    References:
        Devlin et al., BERT (2018). arXiv:1810.04805
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        size: str = "mini",
        pretrained: str | None = None,
        dropout: float = 0.1,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if spec.modality != "text" or spec.vocab_size is None:
            raise ValueError(
                f"TextTransformer encodes text, but the data is {spec.modality} of shape {spec.shape}. Choose an encoder "
                "for this modality, such as encoder=convnet for images or encoder=dual for image_text."
            )
        if size not in SIZES:
            raise ValueError(f"There is no size {size!r}. Choose encoder.size from {sorted(SIZES)}.")
        if pooling not in POOLINGS:
            raise ValueError(f"There is no pooling {pooling!r}. Choose encoder.pooling from {list(POOLINGS)}.")
        self.spec = spec
        self.pooling = pooling
        self._pretrained = pretrained
        self.pretrained = pretrained is not None
        self._config = _bert_config(spec, size, dropout) if pretrained is None else _load_config(pretrained)
        limit = self._config.max_position_embeddings
        if self._config.vocab_size < spec.vocab_size or limit < spec.shape[0]:
            raise ValueError(
                f"{pretrained} knows {self._config.vocab_size} tokens and {limit} positions, but the data has "
                f"{spec.vocab_size} and {spec.shape[0]}. Set data.tokenizer={pretrained} and a fitting data.max_length."
            )
        self.transformer = self._language_model().base_model
        self.embed_dim = self._config.hidden_size

    def _language_model(self) -> Any:
        if self._pretrained is not None:
            return AutoModelForMaskedLM.from_pretrained(self._pretrained, attn_implementation="sdpa")
        return AutoModelForMaskedLM.from_config(self._config, attn_implementation="sdpa")

    def lm_head(self) -> nn.Module:
        """The architecture's own masked-language-model head: (..., D) to (..., V), tied to this encoder's embeddings.

        Raises:
            ValueError: If the architecture's head is not a chain of its modules.
        """
        model = self._language_model()
        parts = [child for child in model.children() if child is not model.base_model]
        head = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
        self._check_is_whole_head(model, head)
        model.set_input_embeddings(self.transformer.get_input_embeddings())
        model.tie_weights()
        return head

    def language_model(self, lm_head: nn.Module) -> Any:
        """One transformers model of this encoder and a head made by :meth:`lm_head`; it shares their parameters."""
        model = AutoModelForMaskedLM.from_config(self._config, attn_implementation="sdpa")
        names = [name for name, child in model.named_children() if child is not model.base_model]
        parts = [lm_head] if len(names) == 1 else list(lm_head.children())
        setattr(model, model.base_model_prefix, self.transformer)
        for name, part in zip(names, parts, strict=True):
            setattr(model, name, part)
        model.tie_weights()
        return model.eval()

    def _check_is_whole_head(self, model: Any, head: nn.Module) -> None:
        ids = torch.arange(4).unsqueeze(0)
        training = model.training
        model.eval()
        with torch.no_grad():
            whole = model(input_ids=ids).logits
            parts = head(model.base_model(input_ids=ids).last_hidden_state)
        model.train(training)
        if whole.shape != parts.shape or not torch.allclose(whole, parts, atol=1e-5):
            raise ValueError(
                f"The masked-language-model head of {type(model).__name__} is not a chain of its modules. Use a BERT, "
                "RoBERTa, ModernBERT or ELECTRA model."
            )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states (B, L, D) of token ids (B, L)."""
        outputs = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        return outputs.last_hidden_state  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> Tensor:
        """Pooled hidden states, shape (B, embed_dim)."""
        inputs = batch["input_ids"], batch["attention_mask"]
        return self.pool(self(*inputs), *inputs)

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """One vector per text (B, D) of hidden states (B, L, D) for (input_ids, attention_mask)."""
        if self.pooling == "first":
            return output[:, 0]
        weights = inputs[1].unsqueeze(-1).to(output.dtype)
        return (output * weights).sum(1) / weights.sum(1).clamp(min=1)


def _bert_config(spec: DataSpec, size: str, dropout: float) -> BertConfig:
    layers, width, heads = SIZES[size]
    assert spec.vocab_size is not None
    return BertConfig(
        vocab_size=-(-spec.vocab_size // 64) * 64,  # a multiple of 64 is faster on the GPU
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max(512, spec.shape[0]),
        pad_token_id=spec.pad_id,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )


def _load_config(name: str) -> Any:
    transformers.logging.set_verbosity_error()
    try:
        return AutoConfig.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"No pretrained model at {name!r}: it is neither a local folder with a config.json nor a hub name that can "
            "be reached from here. Give encoder.pretrained the path of a downloaded model."
        ) from error
