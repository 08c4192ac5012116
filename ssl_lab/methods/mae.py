"""Masked autoencoding: predict the pixels of removed patches from those that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.encoders.vit import ViT, initialise, patchify, sincos_positions, take, transformer, unpatchify
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.optim import Optim
from ssl_lab.pretext.patch_masking import PatchMasking
from ssl_lab.types import Batch, ImageGrid, Picture, Spec


@final
class MAE(Method):
    r"""Masked autoencoder: the encoder sees the visible patches alone, a light decoder predicts the removed ones.

    .. math:: \ell = \frac{1}{|M|} \sum_{i \in M} \frac{1}{P} \Big\| g(f(x_V))_i - \frac{x_i - \mu_i}{\sqrt{\sigma_i^2 +
        10^{-6}}} \Big\|^2

    over the removed patches M of P values each, pixels in [0, 1]; :math:`\mu_i` and :math:`\sigma_i^2` are mean and unbiased
    variance of the patch itself. All images lose the same number of patches, so that the loss of a batch is the mean of
    those of its parts. Features are those of whole images.

    Args:
        encoder: Vision transformer that takes a subset of patches.
        optim: Optimizer and schedule.
        crop: Draws one view of each image, shape (B, C, H, W).
        mask_ratio: Share of the patches that is removed.
        decoder_dim: Width of the decoder.
        decoder_depth: Number of its blocks.
        decoder_num_heads: Attention heads of a block.
        norm_pixels: Predict pixels relative to mean and deviation of their patch, or else as they are.

    Raises:
        ValueError: If the encoder takes whole images alone, if no patch would stay or none be removed, or if a patch has a
            single value and no deviation.

    References:
        He et al., Masked Autoencoders Are Scalable Vision Learners (2021). arXiv:2111.06377
    """

    takes: ClassVar[type[Spec] | None] = ImageSpec
    may_collapse: ClassVar[bool] = False  # whole images' mean tokens lie close together at first
    learns_slowly: ClassVar[str] = (
        "Masked patches are first filled with smooth grey, and features of shapes come after many epochs"
    )
    encoder: ViT

    def __init__(
        self,
        encoder: ViT,
        optim: Optim,
        crop: nn.Module,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int = 128,
        decoder_depth: int = 4,
        decoder_num_heads: int = 4,
        norm_pixels: bool = True,
    ) -> None:
        super().__init__(encoder, optim)
        if not isinstance(encoder, ViT):
            raise ValueError(
                f"MAE encodes some of an image's patches alone, but a {type(encoder).__name__} takes whole images. Choose "
                "encoder=vit_mae_mini, vit_mae_tiny or vit_mae_base."
            )
        self.masking = PatchMasking(mask_ratio)
        num_kept, num_values = self.masking.num_kept(encoder.num_patches), encoder.patch_embed.in_features
        if not 0 < num_kept < encoder.num_patches:
            raise ValueError(
                f"MAE keeps some patches and removes others, but mask_ratio={mask_ratio} keeps {num_kept} of "
                f"{encoder.num_patches}. Change method.mask_ratio, or take a smaller encoder.patch_size."
            )
        if norm_pixels and num_values < 2:
            raise ValueError(
                "MAE with norm_pixels divides by a patch's deviation, but the patches have one value each. Take a larger "
                "encoder.patch_size, or method.norm_pixels=false."
            )
        self.crop = crop
        self.norm_pixels = norm_pixels
        self.decoder = MAEDecoder(encoder, dim=decoder_dim, depth=decoder_depth, num_heads=decoder_num_heads)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode the visible patches, decode the removed ones, compare their pixels."""
        images = self.crop(batch["image"])
        ids_keep, ids_masked = self.masking(len(images), self.encoder.num_patches, images.device)
        predicted = self.decoder(self.encoder(images, ids_keep), ids_keep, ids_masked)
        removed = take(patchify(as_float(images), self.encoder.patch_size), ids_masked)
        return self.log_losses(F.mse_loss(predicted.to(removed.dtype), self.targets(removed)))

    def targets(self, patches: Tensor) -> Tensor:
        """Return the prediction targets of patches (..., P)."""
        if not self.norm_pixels:
            return patches
        mean, std = mean_and_std(patches)
        return (patches - mean) / std

    def mask_and_fill(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) with random patches made grey, and with the prediction in their place, in [0, 1].

        With ``norm_pixels`` the prediction gets its patch's own mean and deviation back: it says nothing about them.
        """
        patches = patchify(as_float(images), self.encoder.patch_size)
        ids_keep, ids_masked = self.masking(len(images), self.encoder.num_patches, images.device, generator)
        predicted = self.decoder(self.encoder(images, ids_keep), ids_keep, ids_masked).to(patches.dtype)
        if self.norm_pixels:
            mean, std = mean_and_std(take(patches, ids_masked))
            predicted = predicted * std + mean
        where = ids_masked.unsqueeze(2).expand_as(predicted)
        filled = patches.scatter(1, where, predicted.clamp(0, 1))
        masked = patches.scatter(1, where, 0.5)
        shape = self.encoder.spec.shape
        return tuple(unpatchify(x, self.encoder.patch_size, shape) for x in (masked, filled))  # type: ignore[return-value]

    def reconstruct(self, batch: Batch) -> Tensor:
        """Images (B, C, H, W) in [0, 1] whose removed patches are predicted; always the same patches of a batch."""
        fixed = torch.Generator(self.device).manual_seed(0)
        return self.mask_and_fill(batch["image"], fixed)[1]

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features and reconstructions."""
        return {**super().capabilities(), "reconstruct": self.in_eval_mode(torch.no_grad()(self.reconstruct))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Images, their visible patches and the reconstructions; the same patches at every step."""
        images = batch["image"][:12]
        fixed = torch.Generator(self.device).manual_seed(0)
        masked, filled = self.in_eval_mode(self.mask_and_fill)(images, fixed)
        rows = torch.stack([as_float(images), masked, filled])
        names, caption = ("image", "masked", "reconstruction"), CAPTIONS["reconstructions"]
        return {"reconstructions": ImageGrid(images=rows, row_names=names, caption=caption)}


class MAEDecoder(nn.Module):
    """Predicts removed patches: the encoder's tokens and mask tokens, all with positions, pass transformer blocks.

    Tokens stay in the order of the shuffle, visible ones first: attention does not see an order, positions go with
    the tokens, and so nothing has to be put back into its place.

    Args:
        encoder: Whose tokens are read.
        dim: Width of the decoder, a multiple of 4.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
    """

    positions: Tensor

    def __init__(self, encoder: ViT, *, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = transformer(dim, depth=depth, num_heads=num_heads)
        self.to_pixels = nn.Linear(dim, encoder.patch_embed.in_features)
        initialise(self)
        self.register_buffer("positions", sincos_positions(encoder.grid, dim), persistent=False)

    def forward(self, tokens: Tensor, ids_keep: Tensor, ids_masked: Tensor) -> Tensor:
        """Predictions (B, L - K, P) for the patches ``ids_masked`` from class and patch tokens (B, 1 + K, D)."""
        classes, visible = self.embed(tokens).split([1, ids_keep.shape[1]], 1)
        removed = self.mask_token + self.positions[ids_masked]
        x = self.blocks(torch.cat([classes, visible + self.positions[ids_keep], removed], 1))
        return self.to_pixels(x[:, tokens.shape[1] :])  # type: ignore[no-any-return]


def mean_and_std(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (..., P), from the unbiased variance and a little more; both (..., 1)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
