"""The parts of a vision transformer that come from timm, of the extra ``vision``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_lab.extras import needed_to

with needed_to("use a vision transformer"):
    from timm.layers.attention import Attention as TimmAttention
    from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
    from timm.models.vision_transformer import Block

__all__ = ["Attention", "Block", "build_sincos2d_pos_embed"]


class Attention(TimmAttention):
    """Self-attention in the fused kernel, but on a CPU in two matrix products.

    There the kernel's backward pass in bf16 takes several times as long on the few tokens of small images, and is no
    faster in fp32.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, D) from tokens; every one sees all."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu":
            heads = (q * self.scale @ k.mT).softmax(-1) @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
