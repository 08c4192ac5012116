"""Low-rank adapters beside the linear layers of an encoder, by peft: the weights it came with stay as they are."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ssl_lab.extras import needed_to
from ssl_lab.types import Encoder

_Module = TypeVar("_Module", bound=nn.Module)


def add_adapters(
    encoder: Encoder, *, rank: int, alpha: float | None = None, dropout: float = 0.0, layers: list[str] | None = None
) -> None:
    r"""Freeze an encoder and put an adapter beside each linear layer of its blocks.

    A layer then computes :math:`W x + \frac{\alpha}{r} B A x` with A (r, in) random and B (out, r) zero at first, so that the
    encoder begins as what it was.

    Args:
        encoder: The encoder.
        rank: r.
        alpha: :math:`\alpha`; None for 2 r.
        dropout: Of what A reads.
        layers: Ends of the names of the layers that get one, such as ``query`` and ``value``; None for all.

    Raises:
        MissingPackageError: If peft is not installed.
        ValueError: If there are no such layers, or the rank saves nothing.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021). arXiv:2106.09685
    """
    if rank < 1 or not 0 <= dropout < 1 or (alpha is not None and alpha <= 0):
        raise ValueError(
            f"Cannot use lora.rank={rank}, lora.alpha={alpha} and lora.dropout={dropout}. Give a rank of at least 1, an "
            "alpha above 0 or null, and a dropout of 0 to below 1."
        )
    shapes = _linear_layers(encoder)
    if not shapes:
        raise ValueError(
            f"Cannot put adapters into {encoder.title}: it has no linear layers, which is where lora.rank={rank} would have "
            "an effect. Choose a ViT or a text transformer, or leave lora.rank out."
        )
    ends = ("",) if layers is None else tuple(f".{end}" for end in layers)
    chosen = [name for name in shapes if f".{name}".endswith(ends)]
    if not chosen or not all(any(f".{name}".endswith(end) for name in shapes) for end in ends):
        known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in shapes))
        raise ValueError(
            f"Cannot use lora.layers={layers}: the linear layers of {encoder.title} are called {known}. Choose from these."
        )
    if all(rank * sum(shapes[name]) >= shapes[name][0] * shapes[name][1] for name in chosen):
        raise ValueError(
            f"Cannot use lora.rank={rank}: adapters of this rank have as many parameters as the layers of {encoder.title} "
            "themselves. Choose a lower rank, or leave it out and train all weights."
        )
    peft = _peft()
    transposed = {isinstance(encoder.get_submodule(name), nn.Linear) for name in chosen} == {False}
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=chosen,
        fan_in_fan_out=transposed,
    )
    encoder.requires_grad_(False)
    peft.inject_adapter_in_model(settings, encoder)


def has_adapters(module: nn.Module) -> bool:
    """Return whether a module has adapters."""
    return any(".lora_A." in name for name, _ in module.named_parameters())


@torch.no_grad()
def merge_adapters(module: _Module) -> _Module:
    """Add each adapter to the weights of its layer, in place; a module without adapters stays as it is."""
    if has_adapters(module):
        layers = {name: each for name, each in module.named_modules() if hasattr(each, "lora_A")}
        for name, layer in layers.items():
            layer.merge(safe_merge=True)  # type: ignore[operator]
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, layer.get_base_layer())  # type: ignore[operator]
    return module


def without_adapters(module: _Module) -> _Module:
    """A copy of a module with its adapters merged; the module itself if it has none."""
    return merge_adapters(deepcopy(module)) if has_adapters(module) else module


def trained_words(module: nn.Module, encoder: nn.Module) -> str:
    """Describe the number of parameters that train."""

    def count(parameters: Any, *, trained: bool) -> int:
        return sum(each.numel() for each in parameters if each.requires_grad or not trained)

    own: list[Tensor] = list(encoder.parameters())
    known = set(own)
    beside = [each for each in module.parameters() if each not in known]
    some, whole, rest = count(own, trained=True), count(own, trained=False), count(beside, trained=True)
    return f"LoRA trains {some:,} of {whole:,} parameters of the encoder ({some / whole:.1%}), and {rest:,} beside it"


def _linear_layers(encoder: Encoder) -> dict[str, tuple[int, int]]:
    """Shapes of the linear layers of the blocks by name; of an encoder without blocks, of all."""
    blocks = {layer for block in encoder.layer_groups().modules for layer in block.modules()}
    found = {}
    for name, layer in encoder.named_modules():
        linear = isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"  # GPT-2's, of transformers
        if linear and (layer in blocks or not blocks):
            found[name] = tuple(layer.weight.shape)
    return found  # type: ignore[return-value]


def _peft() -> Any:
    with needed_to("train adapters (lora.rank)"):
        import peft
    return peft
