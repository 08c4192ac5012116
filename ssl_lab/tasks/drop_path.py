"""Stochastic depth for encoders whose blocks can leave out their branches."""

from __future__ import annotations

import sys

from torch import nn

from ssl_lab.types import Encoder

_NAMES = ("drop_path", "drop_path1", "drop_path2")  # timm's


def set_drop_path(encoder: Encoder, prob: float) -> None:
    r"""Leave out the residual branches of block k of L with probability :math:`p\,(k - 1) / (L - 1)`, per sample.

    Args:
        encoder: An encoder of timm's blocks, such as a ViT or a ConvNeXt.
        prob: p, that of the last block.

    Raises:
        ValueError: If the probability is none below 1, or the encoder has no such blocks.

    References:
        Huang et al., Deep Networks with Stochastic Depth (2016). arXiv:1603.09382
    """
    if not 0 <= prob < 1:
        raise ValueError(f"Cannot use method.drop_path={prob}: it is a probability. Choose 0 to below 1.")
    blocks: list[list[tuple[nn.Module, str]]] = []
    if "timm" in sys.modules:  # else no encoder can hold a block of it
        from timm.layers.drop import DropPath

        kinds = nn.Identity | DropPath
        blocks = [
            [(block, name) for name in _NAMES if isinstance(dict(block.named_children()).get(name), kinds)]
            for block in encoder.layer_groups().modules
        ]
    if not any(blocks):
        raise ValueError(
            f"Cannot use method.drop_path={prob}: the blocks of {type(encoder).__name__} always take all of their branches. "
            "Set method.drop_path=0, or choose a ViT or a model of timm with such blocks."
        )
    for k, places in enumerate(blocks):
        for block, name in places:
            setattr(block, name, DropPath(prob * k / max(1, len(blocks) - 1)))
