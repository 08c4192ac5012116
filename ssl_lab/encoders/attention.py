"""Attention of tokens: weights of an encoder's last block, which its own forward pass does not keep."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_lab.types import Batch, Encoder, NotOfferedError

if TYPE_CHECKING:
    from timm.layers.attention import Attention

_KEEPING = "sdpa_with_given_masks_and_weights_kept"


def patch_attention(encoder: Encoder, batch: Batch) -> Tensor | None:
    """Compute the attention of image features to each patch, by head of the last block, fp32 (B, heads, h, w).

    Weights of the class token where that is the feature, else their mean over the patches' tokens. None for encoders
    without attention over a grid of patches.
    """
    if "timm" not in sys.modules:  # no encoder can hold a layer of it
        return None
    from timm.layers.attention import Attention

    layers = [module for module in encoder.modules() if isinstance(module, Attention)]
    if not layers:
        return None
    kept: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda m, x: kept.append(_weights(m, x[0])))
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            height, width = encoder.maps(batch)[-1].tensor.shape[2:]
    except NotOfferedError:
        return None
    finally:
        hook.remove()
    num_first = kept[0].shape[-1] - height * width  # such as a class token
    if num_first < 0:
        return None
    weights = kept[0][..., num_first:]
    seen = weights[:, :, 0] if encoder.pooling == "class" else weights[:, :, num_first:].mean(2)
    return seen.unflatten(2, (height, width))


def token_attention(encoder: Encoder, batch: Batch) -> Tensor | None:
    """Compute the attention of each token of texts to each other, by head of the last block, fp32 (B, heads, L, L).

    None for encoders without a transformer of the transformers library.
    """
    if "transformers" not in sys.modules:  # no encoder can hold one of its models
        return None
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    models = [module for module in encoder.modules() if isinstance(module, PreTrainedModel)]
    if not models:
        return None
    kept: list[Tensor] = []

    def keep(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any) -> Any:
        scale = settings.get("scaling") or query.shape[-1] ** -0.5
        scores = (query @ key.mT).float() * scale
        if attention_mask is None and getattr(module, "is_causal", True):
            attention_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        elif attention_mask is not None:
            scores = scores + attention_mask
        kept.append(scores.softmax(-1).nan_to_num())  # padding may see nothing
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)

    AttentionInterface.register(_KEEPING, keep)
    config = models[0].config
    before = config._attn_implementation
    config._attn_implementation = _KEEPING
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            encoder.embed(batch)
    finally:
        config._attn_implementation = before
    return kept[-1] if kept else None


def _weights(layer: Attention, x: Tensor) -> Tensor:
    q, k, _ = layer.qkv(x).unflatten(2, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = layer.q_norm(q), layer.k_norm(k)
    return (q * layer.scale @ k.mT).float().softmax(-1)  # type: ignore[no-any-return]
