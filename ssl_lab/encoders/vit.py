"""A vision transformer that can look at some of an image's patches alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.layers import Layers
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.types import Batch


class ViT(ImageEncoder):
    """Patches become tokens with fixed sine-cosine positions, and pass transformer blocks together with a class token.

    Each token carries its position, so a transformer takes any subset of an image's patches in any order.

    Args:
        spec: The image data it is built for.
        patch_size: Side of a patch in pixels.
        embed_dim: Width D of tokens and features, a multiple of 4.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        pooling: Features are the ``mean`` of the patches' tokens, or the ``class`` token.

    Raises:
        ValueError: If the image cannot be cut into such patches, or the width into such heads.

    References:
        Dosovitskiy et al., An Image is Worth 16x16 Words (2020). arXiv:2010.11929
        He et al., Masked Autoencoders Are Scalable Vision Learners (2021), appendix A. arXiv:2111.06377
    """

    positions: Tensor

    def __init__(
        self,
        spec: ImageSpec,
        *,
        patch_size: int = 4,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        pooling: Literal["mean", "class"] = "mean",
    ) -> None:
        super().__init__(spec, embed_dim=embed_dim)
        channels, height, width = spec.shape
        if patch_size < 1 or height % patch_size or width % patch_size:
            raise ValueError(
                f"ViT cuts images into patches of {patch_size}x{patch_size} pixels, but images of {height}x{width} "
                "cannot be divided into these. Set encoder.patch_size to a divisor of both sides, or "
                "data.image_size to a multiple."
            )
        if pooling not in ("mean", "class"):
            raise ValueError(f"There is no pooling {pooling!r}. Choose mean or class.")
        self.patch_size = patch_size
        self.grid = height // patch_size, width // patch_size
        self.pooling = pooling
        self.strides = (patch_size,)
        self.patch_embed = nn.Linear(channels * patch_size**2, embed_dim)
        self.class_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.blocks = transformer(embed_dim, depth=depth, num_heads=num_heads)
        initialise(self)
        self.register_buffer("positions", sincos_positions(self.grid, embed_dim), persistent=False)

    def converted(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """A ViT of timm or of the published MAE, whose fixed positions stand in another order of channels.

        The channels of all layers are then put into the order of these positions, which leaves the network what it is.

        Raises:
            ValueError: If its positions are learned.
        """
        if "cls_token" not in tensors:
            return tensors, ()
        found = {_OWN_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
        for kind in ("weight", "bias"):
            if f"norm.{kind}" in found:
                found[f"blocks.{len(self.blocks) - 1}.{kind}"] = found.pop(f"norm.{kind}")
        if "patch_embed.weight" in found:
            found["patch_embed.weight"] = found["patch_embed.weight"].flatten(1)
        positions, dim = found.pop("pos_embed", None), self.embed_dim
        if positions is None or positions.shape[-1] != dim:
            return found, ()
        side = math.isqrt(positions.shape[1])
        order = _order_of(positions[0, -side * side :], sincos_positions((side, side), dim))
        if order is None:
            raise ValueError(
                "Cannot start a ViT with fixed positions from a network that has learned its own. Choose encoder=timm "
                "encoder.name=vit_small_patch16_224, or the name of its size."
            )
        if positions.shape[1] > side * side:
            found["class_token"] = found["class_token"] + positions[:, :1]
        own = self.state_dict()
        found = {name: _reordered(name, tensor, order) if name in own else tensor for name, tensor in found.items()}
        note = f"fixed positions of {self.grid[0]}x{self.grid[1]} patches, there {side}x{side}"
        return found, () if (side, side) == self.grid else (note,)

    @property
    def num_patches(self) -> int:
        """Number L of patches of an image."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor, ids_keep: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Tokens of images (B, C, H, W), uint8 or float in [0, 1]: the class token, then one for each patch.

        Args:
            images: Images of the size that the encoder was built for.
            ids_keep: Numbers of the patches to look at, row by row from the upper left, int64 (B, K); None for all L.

        Returns:
            Tokens (B, 1 + K, D), patches in the order of ``ids_keep``.

        Raises:
            ValueError: If the images are of another size.
        """
        return self._tokens((as_float(images) - self.mean) / self.std, ids_keep)

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, embed_dim) of normalised images (B, C, H, W)."""
        return self.pool(self._tokens(x, None))

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self.pool(self(batch["image"]))

    def _grids(self, batch: Batch) -> tuple[Tensor, ...]:
        return (self(batch["image"])[:, 1:].mT.unflatten(2, self.grid),)

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """Features (B, D) from tokens (B, 1 + K, D)."""
        return output[:, 1:].mean(1) if self.pooling == "mean" else output[:, 0]

    def layer_groups(self) -> Layers:
        """Its layers; patch projection and class token are the embeddings."""
        return Layers.around(self, self.blocks[:-1])

    def _tokens(self, x: Tensor, ids_keep: Tensor | None) -> Tensor:
        if x.shape[1:] != self.spec.shape:
            raise ValueError(
                f"ViT was built for images of {self.spec.shape}, found {tuple(x.shape[1:])}. Use views of the images' size, "
                "or encoder=vit_tiny, which takes several sizes."
            )
        patches, positions = patchify(x, self.patch_size), self.positions
        if ids_keep is not None:
            patches, positions = take(patches, ids_keep), positions[ids_keep]
        tokens = self.patch_embed(patches) + positions
        return self.blocks(torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], 1))  # type: ignore[no-any-return]


_OWN_NAMES = {
    "cls_token": "class_token",
    "patch_embed.proj.weight": "patch_embed.weight",
    "patch_embed.proj.bias": "patch_embed.bias",
}
_READ_TOKENS = ("attn.qkv.weight", "mlp.fc1.weight")
_WRITE_TOKENS = ("class_token", "patch_embed.", "attn.proj.", "mlp.fc2.", "norm1.", "norm2.")


def _order_of(found: Tensor, own: Tensor) -> Tensor | None:
    """Channels of ``found`` in the order of ``own``, both (L, D), if they are the same quarters; else None."""
    quarters, wanted = found.chunk(4, 1), own.chunk(4, 1)
    for order in permutations(range(4)):
        if all(torch.allclose(quarters[k], quarter, atol=1e-3) for k, quarter in zip(order, wanted, strict=True)):
            channels = torch.arange(own.shape[1]).chunk(4)
            return torch.cat([channels[k] for k in order])
    return None


def _reordered(name: str, tensor: Tensor, order: Tensor) -> Tensor:
    """A layer's tensor with the channels of tokens in another order, where it reads or writes tokens."""
    if any(part in name for part in _READ_TOKENS):
        return tensor[:, order]
    last_norm = re.fullmatch(r"blocks\.\d+\.(weight|bias)", name)
    if name == "class_token":
        return tensor[..., order]
    return tensor[order] if last_norm or any(part in name for part in _WRITE_TOKENS) else tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, C, H, W) as patches (B, L, C * patch_size^2), row by row from the upper left."""
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch_size: int, shape: tuple[int, ...]) -> Tensor:
    """Images (B, C, H, W) of ``shape`` (C, H, W) from patches (B, L, C * patch_size^2)."""
    channels, height, width = shape
    grid = patches.reshape(-1, height // patch_size, width // patch_size, channels, patch_size, patch_size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def take(x: Tensor, ids: Tensor) -> Tensor:
    """Entries (B, K, D) of x (B, L, D) that ids (B, K) name."""
    return x.gather(1, ids.unsqueeze(2).expand(-1, -1, x.shape[2]))


def transformer(dim: int, *, depth: int, num_heads: int) -> nn.Sequential:
    """Pre-norm blocks on tokens (B, N, D), hidden layers four times as wide, and a last normalisation.

    Raises:
        ValueError: If the width is no multiple of the number of heads.
    """
    if depth < 1 or num_heads < 1 or dim % num_heads:
        raise ValueError(
            f"Cannot build a transformer with {depth} blocks of {num_heads} heads, {dim} wide. It needs at "
            "least one of each and a width that is a multiple of the number of heads."
        )
    from ssl_lab.encoders.vit_attention import Attention, Block

    blocks = [Block(dim, num_heads, qkv_bias=True, attn_layer=Attention) for _ in range(depth)]
    return nn.Sequential(*blocks, nn.LayerNorm(dim, eps=1e-6))


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    r"""Fixed positions (L, D) of a grid: sines and cosines of row and column with frequencies :math:`10^{-16 k / D}`.

    Raises:
        ValueError: If the width is no multiple of four.
    """
    if dim % 4:
        raise ValueError(f"Sine and cosine of row and column need a width that is a multiple of 4, found {dim}.")
    from ssl_lab.encoders.vit_attention import build_sincos2d_pos_embed

    return build_sincos2d_pos_embed(list(grid), dim)  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and no biases in all linear layers, as in the published MAE."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
