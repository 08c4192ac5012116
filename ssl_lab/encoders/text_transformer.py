"""Text encoders from transformers: BERT, RoBERTa, ModernBERT, GPT-2 and T5."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ssl_lab.encoders.lora import without_adapters
from ssl_lab.encoders.text_configs import first_position_of, load_config, max_length_of, new_config, objective_of
from ssl_lab.layers import Layers
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.packing import positions_in_documents, same_document_mask
from ssl_lab.types import Batch, Encoder

POOLINGS = ("mean", "first", "last")

# A name that transformers knows no mask function for: it then takes the masks given here as they are, and neither builds
# its own nor looks into one on the device, which would wait for the device in every step.
_ATTENTION = "sdpa_with_given_masks"
AttentionInterface.register(_ATTENTION, sdpa_attention_forward)

_AUTO = {"masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM, "denoising": AutoModelForSeq2SeqLM}
_MASKS_GIVEN = ("bert", "roberta", "xlm-roberta", "camembert", "modernbert", "gpt2", "t5")


_KEPT = "encoder"
"""Folder of a run directory with the configuration of a pretrained model."""


class TextTransformer(Encoder):
    """A transformer; features are its last hidden states, pooled over the tokens of a text.

    BERT, RoBERTa and ModernBERT see both sides of a token, GPT-2 what stands before it. Of T5 this is the encoder stack.

    Args:
        spec: The text data it is built for.
        architecture: Of a new model: ``bert``, ``roberta``, ``modernbert``, ``gpt2`` or ``t5``. Ignored with
            ``pretrained``.
        size: Of a new model, with the layers, width and heads of the BERT miniatures: ``tiny``, ``nano`` (4 layers, 128
            wide), ``mini``, ``small`` or ``base``. Ignored with ``pretrained``.
        pretrained: A local folder or hub name of a language model to start from.
        dropout: Dropout in attention and hidden layers of a new model.
        pooling: ``mean`` over real tokens; ``first``: the state of the class token; ``last``: that of the last real
            token, the only one that has seen a whole text in GPT-2.

    Raises:
        ValueError: If the data is not text, the architecture, size or pooling is unknown, the pooling makes no sense for
            the architecture, or the pretrained vocabulary or length does not fit.

    References:
        Devlin et al., BERT (2018). arXiv:1810.04805
        Liu et al., RoBERTa (2019). arXiv:1907.11692
        Warner et al., ModernBERT (2024). arXiv:2412.13663
        Radford et al., Language Models are Unsupervised Multitask Learners (2019).
        Raffel et al., T5 (2020). arXiv:1910.10683
    """

    spec: TextSpec

    def __init__(
        self,
        spec: TextSpec,
        *,
        architecture: str = "bert",
        size: str = "mini",
        pretrained: str | None = None,
        dropout: float = 0.1,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        spec = TextSpec.of(spec, type(self).__name__)
        if pooling not in POOLINGS:
            raise ValueError(f"There is no pooling {pooling!r}. Choose encoder.pooling from {list(POOLINGS)}.")
        self.spec = spec
        self.pooling = pooling
        self._pretrained = pretrained
        self.pretrained = pretrained is not None
        new = pretrained is None
        self.config = new_config(spec, architecture, size, dropout) if new else load_config(str(pretrained))
        self.objective = objective_of(self.config)
        if pooling == "first" and self.objective == "causal":
            raise ValueError(
                f"The first token of a {self.config.model_type} has seen nothing but itself, so its state is no feature of "
                "a text. Choose encoder.pooling=last or mean."
            )
        limit = max_length_of(self.config)
        if self.config.vocab_size < spec.vocab_size or (limit is not None and limit < spec.length):
            raise ValueError(
                f"{pretrained} knows {self.config.vocab_size} tokens and {limit} positions, but the data has "
                f"{spec.vocab_size} and {spec.length}. Set data.tokenizer={pretrained} and a fitting data.max_length."
            )
        self._masks_given = self.config.model_type in _MASKS_GIVEN
        model = self._language_model()
        self.transformer = model.encoder if self.objective == "denoising" else model.base_model
        self.embed_dim = self.config.hidden_size
        kept_name = str(vars(self.config).pop("published_name", None) or pretrained)
        self._title = f"{architecture}-{size}" if pretrained is None else Path(kept_name).name

    @property
    def title(self) -> str:
        """Architecture and size of a new model, else the name of the pretrained one."""
        return self._title

    @classmethod
    def settings_in_run(cls, run_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that the run has kept of a pretrained model."""
        kept = run_dir / _KEPT
        return {"pretrained": str(kept)} if settings.get("pretrained") and (kept / "config.json").is_file() else {}

    def save_in_run(self, run_dir: Path) -> None:
        """The configuration of a pretrained model, without its weights."""
        if self._pretrained is not None:
            config = deepcopy(self.config)
            config.published_name = self._title
            config.save_pretrained(run_dir / _KEPT)

    def converted(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """With the names of today for layer normalisation, which the first published BERTs call gamma and beta."""
        old = {".gamma": ".weight", ".beta": ".bias"}
        return {re.sub(r"\.(gamma|beta)$", lambda found: old[found[0]], name): t for name, t in tensors.items()}, ()

    def _new_model(self, attention: str) -> Any:
        """A language model with new weights; how it computes attention is noted in the copy of the configuration."""
        return _AUTO[self.objective].from_config(
            deepcopy(self.config), attn_implementation=attention, trust_remote_code=False
        )

    def _language_model(self) -> Any:
        attention = _ATTENTION if self._masks_given else "sdpa"
        if self._pretrained is None or _is_config_alone(self._pretrained):
            return self._new_model(attention)
        transformers.utils.logging.disable_progress_bar()
        try:
            model = _AUTO[self.objective].from_pretrained(
                self._pretrained, attn_implementation=attention, trust_remote_code=False
            )
        except ValueError as error:
            raise ValueError(
                f"{self._pretrained} is a {self.config.model_type}, which cannot be used as encoder.pretrained. Choose a "
                "masked language model such as BERT, RoBERTa or ModernBERT, a GPT-2, or a T5."
            ) from error
        return model.train()  # transformers loads models ready for use, without dropout, and Lightning leaves it so

    def lm_head(self) -> nn.Module:
        """The architecture's own language-model head: (..., D) to (..., V), tied to this encoder's embeddings.

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

    def language_model(self, lm_head: nn.Module, decoder: nn.Module | None = None) -> Any:
        """This encoder, a head and a T5's decoder stack as one model of transformers, in eval mode; a copy."""
        model = self._new_model("sdpa")
        if decoder is not None:
            parts = {"encoder": self.transformer, "decoder": decoder, "lm_head": lm_head}
        else:
            names = [name for name, child in model.named_children() if child is not model.base_model]
            heads = [lm_head] if len(names) == 1 else list(lm_head.children())
            parts = {model.base_model_prefix: self.transformer, **dict(zip(names, heads, strict=True))}
        for name, part in parts.items():
            getattr(model, name).load_state_dict(without_adapters(part).state_dict())
        return model.to(next(self.parameters()).device).eval()

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
                f"The language-model head of {type(model).__name__} is not a chain of its modules. Use a BERT, RoBERTa, "
                "ModernBERT, ELECTRA or GPT-2 model."
            )

    def decoder(self) -> tuple[nn.Module, nn.Module]:
        """The decoder stack that belongs to a T5 encoder, and its head (..., D) to (..., V), with shared embeddings."""
        assert self.objective == "denoising"
        model = self._language_model()
        model.set_input_embeddings(self.transformer.get_input_embeddings())
        model.tie_weights()
        return model.decoder, model.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        document_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, L, D) of token ids (B, L).

        Args:
            input_ids: Token ids; padding, if there is any, stands at the end of a row.
            attention_mask: 1 at real tokens, (B, L); None if there is no padding.
            document_ids: With several documents in a row: number of the document of each token, 0 for padding, (B, L).
                Attention stays inside of a document, and positions begin anew with each.
            token_type_ids: 0 for the first of two texts in a row, 1 for the second, (B, L); read by BERT alone.

        Raises:
            ValueError: If there are several documents in a row and the architecture cannot keep them apart.
        """
        if not self._masks_given:
            if document_ids is not None:
                raise ValueError(
                    f"Packed documents cannot be kept apart in a {self.config.model_type}. Set data.packing=false, or "
                    f"choose one of {list(_MASKS_GIVEN)}."
                )
            outputs = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
            return outputs.last_hidden_state  # type: ignore[no-any-return]
        inputs: dict[str, Any] = {"inputs_embeds": self.transformer.get_input_embeddings()(input_ids)}
        mask = self._mask(input_ids, attention_mask, document_ids)
        if self.config.model_type == "modernbert":
            inputs["attention_mask"] = self._mask_by_layer(input_ids, mask)
        else:
            inputs["attention_mask"] = mask
        if self.config.model_type == "bert":
            inputs["token_type_ids"] = token_type_ids
        if self.config.model_type != "t5":  # where positions are relative
            inputs["position_ids"] = self._positions(input_ids, document_ids)
        return self.transformer(**inputs).last_hidden_state  # type: ignore[no-any-return]

    def _positions(self, input_ids: Tensor, document_ids: Tensor | None) -> Tensor:
        if document_ids is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        else:
            positions = positions_in_documents(document_ids)
        return positions + first_position_of(self.config)

    def _mask(self, input_ids: Tensor, attention_mask: Tensor | None, document_ids: Tensor | None) -> Tensor | None:
        """Who may see whom, bool (B, 1, L, L); None where the kernel needs no mask."""
        if document_ids is not None:
            mask = same_document_mask(document_ids)
            return mask.tril() if self.objective == "causal" else mask
        if self.objective == "causal" or attention_mask is None:
            return None  # what follows a token, padding included, is hidden from it anyway
        return padding_mask(attention_mask, num_queries=input_ids.shape[1])

    def _mask_by_layer(self, input_ids: Tensor, mask: Tensor | None) -> dict[str, Tensor | None]:
        length, window = input_ids.shape[1], self.config.sliding_window
        if length <= window + 1:  # every pair is near
            return {"full_attention": mask, "sliding_attention": mask}
        places = torch.arange(length, device=input_ids.device)
        near = ((places.unsqueeze(1) - places).abs() <= window)[None, None]
        return {"full_attention": mask, "sliding_attention": near if mask is None else near & mask}

    def embed(self, batch: Batch) -> Tensor:
        """Pooled hidden states, shape (B, embed_dim).

        Raises:
            ValueError: If rows hold several documents.
        """
        document_ids = batch.get("document_ids")
        if document_ids is not None and bool((document_ids > 1).any()):
            raise ValueError(
                "Features belong to single texts, but the rows of this batch hold several documents. Set "
                "data.packing=false for data whose features are asked for."
            )
        inputs = batch["input_ids"], batch["attention_mask"]
        return self.pool(self(*inputs), *inputs)

    def pool(self, output: Tensor, *inputs: Tensor | None) -> Tensor:
        """One vector per row (B, D) of hidden states (B, L, D) for (input_ids, attention_mask).

        Of a row with several documents it is that of the first.
        """
        input_ids, attention_mask, document_ids = (*inputs, None)[:3]
        assert input_ids is not None
        if self.pooling == "first":
            return output[:, 0]
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if document_ids is not None:
            real = real * (document_ids == document_ids[:, :1])
        if self.pooling == "last":
            last = (real * torch.arange(real.shape[1], device=real.device)).argmax(1)
            return output[torch.arange(output.shape[0], device=output.device), last]
        weights = real.unsqueeze(-1).to(output.dtype)
        return (output * weights).sum(1) / weights.sum(1).clamp(min=1)

    def layer_groups(self) -> Layers:
        """Its layers; the blocks are in the first list of as many modules as the configuration has hidden layers.

        Without such a list, as in ALBERT, whose layers share their parameters, there are no blocks.
        """
        num_blocks = self.transformer.config.num_hidden_layers
        lists = [m for m in self.transformer.modules() if isinstance(m, nn.ModuleList) and len(m) == num_blocks]
        return Layers.around(self, lists[0] if lists else [])


def _is_config_alone(name: str) -> bool:
    """Return whether a folder holds the configuration of a model without weights, as a run keeps it."""
    folder = Path(name)
    return (folder / "config.json").is_file() and not any(
        path.suffix in (".safetensors", ".bin") for path in folder.iterdir()
    )


def padding_mask(attention_mask: Tensor, *, num_queries: int) -> Tensor | None:
    """Mark the visible tokens of L, bool (B, 1, Q, L), in no more memory than (B, L) takes.

    None if the mask lies in the memory of the CPU and has no padding; a look at a GPU's would wait for it.
    """
    if attention_mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :].expand(-1, -1, num_queries, -1)
