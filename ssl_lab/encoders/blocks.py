"""The equal parts that a deep network is a chain of: what is sharded, or computed again, one at a time."""

from __future__ import annotations

from collections import Counter
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(module: nn.Module) -> list[nn.Module]:
    """Transformer blocks, residual blocks and the like inside of a module, in its order.

    These are modules of several layers with parameters of which a ``ModuleList`` or ``Sequential`` holds two of one class
    or more; of nested ones the innermost.
    """
    candidates: dict[nn.Module, None] = {}
    for container in module.modules():
        if isinstance(container, nn.ModuleList | nn.Sequential):
            counts = Counter(type(child) for child in container)
            candidates |= {c: None for c in container if counts[type(c)] > 1 and _num_layers(c) > 1}
    return [
        candidate
        for candidate in candidates
        if not any(inner in candidates for inner in candidate.modules() if inner is not candidate)
    ]


def recompute_activations(module: nn.Module) -> None:
    """Make each block forget its activations and compute them again in the backward pass, dropout included.

    A block then keeps nothing but its input: memory for the price of a second forward pass. Weights, their names, losses
    and gradients stay the same.

    Raises:
        ValueError: If there are no blocks, or batch statistics in them, which would be counted twice.

    References:
        Chen et al., Training Deep Nets with Sublinear Memory Cost (2016). arXiv:1604.06174
    """
    found = blocks(module)
    statistics = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for block in found for layer in block.modules())
    if not found or statistics:
        reason = "its batch normalisation would count each batch twice" if found else "it has no repeated blocks"
        raise ValueError(
            f"Cannot recompute activations of a {type(module).__name__}: {reason}. Set "
            "activation_checkpointing=false, or choose a transformer or a ViT of two blocks or more as encoder=."
        )
    for block in found:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _num_layers(module: nn.Module) -> int:
    return sum(1 for layer in module.modules() if layer._parameters)
