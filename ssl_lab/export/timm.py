"""Writing an image encoder as a folder that timm loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ssl_lab.encoders.resnet import SMALL_IMAGE, ResNet
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.export.heads import Classifier
from ssl_lab.export.transformers import check_features
from ssl_lab.extras import needed_to
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Batch, Encoder, NotOfferedError, Spec

with needed_to("export format=timm"):
    import timm


@dataclass(frozen=True, kw_only=True)
class ForTimm:
    """An encoder in timm's words.

    Attributes:
        architecture: A name of ``timm.list_models()``.
        arguments: What ``timm.create_model`` needs beyond the name.
        weights: The state dict of that model.
        fixed_size: Whether it takes images of one size.
    """

    architecture: str
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    fixed_size: bool = False


@singledispatch
def for_timm(encoder: Encoder) -> ForTimm:
    """The encoder as a model of timm with the same features.

    Raises:
        ValueError: If timm has no such architecture.
    """
    raise ValueError(
        f"timm has no architecture that is a {type(encoder).__name__}. Export it with format=onnx or format=torch_export, "
        "or pretrain one of encoder=timm, vit_tiny, vit_mae_mini, or a resnet18 of images above 64 pixels."
    )


@for_timm.register
def _(encoder: TimmModel) -> ForTimm:
    return ForTimm(
        architecture=encoder.network.pretrained_cfg["architecture"],
        arguments=encoder.arguments,
        weights=encoder.network.state_dict(),
        fixed_size=bool(encoder.network.pretrained_cfg.get("fixed_input_size")),
    )


@for_timm.register
def _(encoder: ResNet) -> ForTimm:
    sides = encoder.spec.shape[1:]
    if max(sides) <= SMALL_IMAGE:
        raise ValueError(
            f"For images of {sides[0]}x{sides[1]} pixels, ResNet-{encoder.depth} begins with a 3x3 convolution of "
            "stride 1 and has no max-pooling; timm's ResNet has no such variant. Export it with format=onnx or "
            "format=torch_export, or pretrain encoder=timm encoder.name=resnet18, which is timm's own."
        )
    return ForTimm(
        architecture=f"resnet{encoder.depth}",
        arguments={"in_chans": encoder.spec.shape[0]},
        weights=encoder.network.state_dict(),
    )


def write_for_timm(
    encoder: Encoder, folder: Path, *, classifier: Classifier | None = None, spec: Spec | None = None
) -> None:
    """Weights (safetensors) and configuration in a folder that exists, loaded back and compared.

    Args:
        encoder: The encoder.
        folder: The folder.
        classifier: A head that goes along; None for features.
        spec: What the model reads; None for what the encoder was built from.

    Raises:
        ValueError: If timm has no such architecture, or its model gives other features or scores.
    """
    model, spec = for_timm(encoder), ImageSpec.of(spec or encoder.spec, "A model of timm")
    num_classes = 0 if classifier is None else len(classifier.names)
    named: dict[str, Any] = {}
    if classifier is not None:
        place = _place_of_classifier(model, num_classes)
        head = {f"{place}.{name}": tensor for name, tensor in classifier.linear.state_dict().items()}
        model, named = replace(model, weights={**model.weights, **head}), {"label_names": list(classifier.names)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.weights.items()}
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    config = {
        "architecture": model.architecture,
        "num_classes": num_classes,
        **named,
        "num_features": encoder.embed_dim,
        "model_args": model.arguments,
        "pretrained_cfg": {
            "num_classes": num_classes,
            "input_size": list(spec.shape),
            "fixed_input_size": model.fixed_size,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def load() -> Callable[[Batch], Tensor]:
        network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
        return lambda batch: network((batch["image"] - mean) / std)

    encoder.cpu().eval()
    check_features(load, encoder.embed if classifier is None else classifier.scores, spec)


def _place_of_classifier(model: ForTimm, num_classes: int) -> str:
    """Where timm's model keeps its last layer.

    Raises:
        NotOfferedError: If it has several.
    """
    network: Any = timm.create_model(model.architecture, num_classes=num_classes, **model.arguments)
    place = network.pretrained_cfg.get("classifier")
    if not isinstance(place, str):
        raise NotOfferedError(f"timm's {model.architecture} has no single classifier")
    return place


@for_timm.register
def _(encoder: ViT) -> ForTimm:
    """Positions become a parameter of their own, and the patches' linear layer a convolution."""
    channels = encoder.spec.shape[0]
    size = encoder.patch_size
    dim = encoder.embed_dim
    *blocks, norm = encoder.blocks
    weights = {
        "cls_token": encoder.class_token.detach(),
        "pos_embed": encoder.positions.unsqueeze(0),
        "patch_embed.proj.weight": encoder.patch_embed.weight.detach().reshape(dim, channels, size, size),
        "patch_embed.proj.bias": encoder.patch_embed.bias.detach(),
        **{f"blocks.{k}.{name}": value for k, block in enumerate(blocks) for name, value in block.state_dict().items()},
        **{f"norm.{name}": value for name, value in norm.state_dict().items()},
    }
    arguments = {
        "img_size": list(encoder.spec.shape[1:]),
        "patch_size": size,
        "in_chans": channels,
        "embed_dim": dim,
        "depth": len(blocks),
        "num_heads": blocks[0].attn.num_heads,  # type: ignore[union-attr]
        "no_embed_class": True,  # the class token has no position
        "global_pool": "avg" if encoder.pooling == "mean" else "token",
        "fc_norm": False,  # normalised before pooling
    }
    return ForTimm(architecture="vit_base_patch16_224", arguments=arguments, weights=weights, fixed_size=True)
