"""What tokens look at: attention weights of an encoder's last block, which its own forward pass does not keep."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.types import Batch, Encoder

_KEEPING = "sdpa_with_given_masks_and_weights_kept"


def patch_attention(encoder: Encoder, batch: Batch) -> Tensor | None:
    """How much the features of images look at each patch, by head of the last block, fp32 (B, heads, h, w).

    Weights of the class token where that is the feature, else their mean over the patches' tokens. None for encoders
    that are no vision transformers.
    """
    if isinstance(encoder, ViT):
        grid, num_first, by_class = encoder.grid, 1, encoder.pooling == "class"
    elif isinstance(encoder, TimmModel):
        patches = getattr(encoder.network, "patch_embed", None)
        grid = getattr(patches, "grid_size", None) or (0, 0)
        num_first = getattr(encoder.network, "num_prefix_tokens", 0)
        by_class = getattr(encoder.network, "global_pool", "") == "token"
    else:
        return None
    layers = [module for module in encoder.modules() if isinstance(module, Attention)]
    kept: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda m, x: kept.append(_weights(m, x[0]))) for layer in layers[-1:]]
    try:
        _run(encoder, batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not kept or kept[0].shape[-1] != num_first + grid[0] * grid[1]:
        return None
    weights = kept[0][..., num_first:]
    seen = weights[:, :, 0] if by_class else weights[:, :, num_first:].mean(2)
    return seen.unflatten(2, grid)


def token_attention(encoder: Encoder, batch: Batch) -> Tensor | None:
    """How much each token of texts looks at each other, by head of the last block, fp32 (B, heads, L, L).

    None for encoders of another kind.
    """
    if not isinstance(encoder, TextTransformer):
        return None
    kept: list[Tensor] = []

    def keep(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any) -> Any:
        scale = settings.get("scaling") or query.shape[-1] ** -0.5
        scores = (query @ key.mT).float() * scale
        if attention_mask is None and encoder.objective == "causal":
            attention_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        elif attention_mask is not None:
            scores = scores + attention_mask
        kept.append(scores.softmax(-1).nan_to_num())  # padding may see nothing
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)

    AttentionInterface.register(_KEEPING, keep)
    config = encoder.transformer.config
    before = config._attn_implementation
    config._attn_implementation = _KEEPING
    try:
        _run(encoder, batch)
    finally:
        config._attn_implementation = before
    return kept[-1] if kept else None


@torch.no_grad()
@torch.compiler.set_stance("force_eager")
def _run(encoder: Encoder, batch: Batch) -> None:
    encoder.embed(batch)


def _weights(layer: Attention, x: Tensor) -> Tensor:
    q, k, _ = layer.qkv(x).unflatten(2, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = layer.q_norm(q), layer.k_norm(k)
    return (q * layer.scale @ k.mT).float().softmax(-1)  # type: ignore[no-any-return]
