"""Writing a trained encoder as a folder that transformers loads, and what all formats of an export share."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial, singledispatch
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)
from transformers.models.t5.modeling_t5 import T5Stack

from ssl_lab import outputs
from ssl_lab.encoders.lora import has_adapters, merge_adapters
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.vit import ViT
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch, Encoder, Spec

TOLERANCE = 1e-4
"""Largest difference of an export's features from the run's, relative to their own size where that is above 1."""
MARK = "config.json"
"""File of every exported folder, without which a folder is not overwritten."""
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.onnx|model\.pt2")
_WRITTEN = re.compile(
    rf"{_WEIGHTS.pattern}|model\.safetensors\.index\.json|model\.onnx(\.data|_data)|README\.md|"
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config|"
    r"processor_config)\.json|vocab\.txt|merges\.txt|spiece\.model|chat_template\.(jinja|json)"
)
"""Names of the files that exports write."""
_IN_VIT = {
    "norm1": ("layernorm_before",),
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
"""Names of timm's layers in a block of transformers' ViT."""


def same_features(found: Tensor, wanted: Tensor) -> bool:
    """Return whether features agree to :data:`TOLERANCE`."""
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@torch.no_grad()
def is_whole(method: Method) -> bool:
    """Return whether the method's features, which protocols judge, are those of its encoder alone."""
    batch = {name: column.to(method.device) for name, column in method.feature_encoder.tower.spec.example(3).items()}
    batch["index"] = torch.arange(len(next(iter(batch.values()))), device=method.device)
    return same_features(method.feature_encoder.embed(batch), method.features(batch))


@torch.no_grad()
def check_finite_method(method: Method, spec: Spec) -> None:
    """Refuse a method whose features of random inputs are not finite.

    Raises:
        ValueError: Saying of how many inputs.
    """
    batch = {name: column.to(method.device) for name, column in spec.example(3).items()}
    batch["index"] = torch.arange(len(next(iter(batch.values()))), device=method.device)
    check_finite(method.features(batch), "random", use="exported")


@torch.no_grad()
def merge_checked(method: Method, spec: Spec) -> None:
    """Merge the adapters of a method, and compare its features with those before.

    Raises:
        ValueError: If they differ.
    """
    if not has_adapters(method):
        return
    batch = {name: column.to(method.device) for name, column in spec.example(3).items()}
    batch["index"] = torch.arange(len(next(iter(batch.values()))), device=method.device)
    before = method.features(batch)
    merge_adapters(method)
    if not same_features(method.features(batch), before):
        raise ValueError(
            "Cannot export the run: its features change when its adapters are added to its weights. Train it in fp32."
        )


@torch.no_grad()
def check_features(
    load: Callable[[], Callable[[Batch], Tensor]], wanted: Callable[[Batch], Tensor], spec: Spec
) -> None:
    """Load the export and compare its features of random inputs with the run's, in batches of several sizes.

    Raises:
        ValueError: If they differ.
    """
    loaded = load()
    for num_samples in (1, 5):
        batch = spec.example(num_samples)
        found, expected = loaded(batch), wanted(batch)
        if not same_features(found, expected):
            differ = f"shapes {tuple(found.shape)} and {tuple(expected.shape)}"
            if found.shape == expected.shape:
                differ = f"up to {float((found - expected).abs().max()):.2g}"
            raise ValueError(
                f"Cannot export: the features should equal the run's to {TOLERANCE:.0e}, but on random inputs "
                f"they differ ({differ}). Nothing was written. Choose another format=."
            )


def transformers_model(method: Method) -> PreTrainedModel:
    """The model of transformers in a method: encoder and language-model head, or the encoder of a method without one.

    Raises:
        ValueError: If the method's encoder is no model of transformers.
    """
    capabilities = method.capabilities()
    if "language_model" in capabilities:
        return capabilities["language_model"]()  # type: ignore[no-any-return]
    return _as_model(method.feature_encoder, method)


@singledispatch
def _as_model(encoder: Encoder, method: Method) -> PreTrainedModel:
    raise ValueError(
        f"transformers has no class for the encoder of this run, a {type(encoder).__name__}. "
        "Export it with format=onnx or format=torch_export; timm's models and large ResNets with format=timm."
    )


@_as_model.register
def _(encoder: TextTransformer, method: Method) -> PreTrainedModel:
    transformer = encoder.transformer
    if isinstance(transformer, T5Stack):  # AutoModel would give it a decoder with random weights
        model: Any = T5EncoderModel(deepcopy(encoder.config))
        model.encoder.load_state_dict(transformer.state_dict())
        return model.to(method.device).eval()  # type: ignore[no-any-return]
    return transformer.eval()  # type: ignore[no-any-return]


@_as_model.register
def _(encoder: ViT, method: Method) -> PreTrainedModel:
    return _vit(encoder)


def _vit(encoder: ViT) -> ViTModel:
    """The same transformer in the words of transformers: queries, keys and values apart, positions as weights."""
    channels, *sides = encoder.spec.shape
    *blocks, norm = encoder.blocks
    dim, size = encoder.embed_dim, encoder.patch_size
    model = ViTModel(
        ViTConfig(
            hidden_size=dim,
            num_hidden_layers=len(blocks),
            num_attention_heads=blocks[0].attn.num_heads,  # type: ignore[union-attr, arg-type]
            intermediate_size=4 * dim,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=norm.eps,  # type: ignore[arg-type]
            image_size=sides,  # type: ignore[arg-type]
            patch_size=size,
            num_channels=channels,
        ),
        add_pooling_layer=False,
    )
    weights = {
        "embeddings.cls_token": encoder.class_token.detach(),
        "embeddings.position_embeddings": torch.cat([torch.zeros(1, dim), encoder.positions.cpu()]).unsqueeze(0),
        "embeddings.patch_embeddings.projection.weight": encoder.patch_embed.weight.reshape(dim, channels, size, size),
        "embeddings.patch_embeddings.projection.bias": encoder.patch_embed.bias,
        **{f"layernorm.{name}": value for name, value in norm.state_dict().items()},
    }
    for k, block in enumerate(blocks):
        for name, value in block.state_dict().items():
            layer, _, kind = name.rpartition(".")
            thirds = value.chunk(3) if layer == "attn.qkv" else (value,)
            for place, third in zip(_IN_VIT[layer], thirds, strict=True):
                weights[f"layers.{k}.{place}.{kind}"] = third
    model.load_state_dict(weights)
    return model.eval()


def auto_class(model: PreTrainedModel) -> str:
    """Name of the transformers class whose ``from_pretrained`` loads the model with its architecture."""
    of_suffix = {
        "ForMaskedLM": "AutoModelForMaskedLM",
        "LMHeadModel": "AutoModelForCausalLM",
        "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
        "T5EncoderModel": "T5EncoderModel",  # AutoModel loads T5Model
        "ViTModel": "ViTModel",  # AutoModel adds a pooler with random weights
    }
    return next((name for end, name in of_suffix.items() if type(model).__name__.endswith(end)), "AutoModel")


def write_for_transformers(model: PreTrainedModel, folder: Path) -> None:
    """Weights (safetensors) and configuration in a folder that exists."""
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder)


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, *, max_length: int) -> None:
    """A text model's tokenizer; ``truncation=True`` cuts texts at the longest ones that were trained on."""
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


@singledispatch
def write_processor(encoder: Encoder, folder: Path) -> None:
    """Write the image processor for transformers and compare features after it; write nothing for other encoders.

    Raises:
        ValueError: If the model that was written gives other features.
    """


@write_processor.register
def _(encoder: ViT, folder: Path) -> None:
    spec = encoder.spec
    processor = ViTImageProcessor(
        size={"height": spec.shape[1], "width": spec.shape[2]}, image_mean=list(spec.mean), image_std=list(spec.std)
    )
    processor.save_pretrained(folder)

    def load() -> Callable[[Batch], Tensor]:
        model = ViTModel.from_pretrained(folder, add_pooling_layer=False, trust_remote_code=False).eval()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
        return lambda batch: encoder.pool(model(pixel_values=(batch["image"] - mean) / std).last_hidden_state)

    check_features(load, encoder.cpu().eval().embed, spec)


def check_replaceable(out: Path, *, overwrite: bool = False) -> None:
    """Refuse to write an export over anything but an earlier export, and over that only if it is to be replaced.

    Raises:
        ValueError: If ``out`` is a file, or a folder that holds anything which no export writes.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"Cannot write the export to {out}: it is a file. Give out= a new folder.")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not found:
        return
    if MARK not in found or not any(_WEIGHTS.fullmatch(name) for name in found):
        raise ValueError(f"{out} is not empty and not an earlier export. Give out= a new folder.")
    foreign = [name for name in found if not _WRITTEN.fullmatch(name) or (out / name).is_dir()]
    if foreign:
        raise ValueError(
            f"Cannot replace the export in {out}: it also holds {', '.join(foreign[:5])}, which no export writes. Move that "
            "away, or give out= a new folder."
        )
    if not overwrite:
        raise ValueError(f"{out} holds a model already. Give out= a new folder, or overwrite=true to replace it.")


def write_folder(out: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let ``write`` fill a new folder that takes the place of ``out`` at once: nobody ever sees a part of it.

    Args:
        out: The folder; may exist if it is empty.
        write: Fills the folder that it is given.
        overwrite: Replace an earlier export.

    Raises:
        ValueError: If ``out`` exists and holds something, unless it is an earlier export and ``overwrite`` is set.
    """
    may_replace = partial(check_replaceable, overwrite=overwrite)
    may_replace(out)
    outputs.write_folder(out, write, may_replace=may_replace)
