"""CLIP: an image and its caption find each other among all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.losses.contrastive import clip_loss
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.optim import Optim
from ssl_lab.pretext import captions as of_views
from ssl_lab.types import Batch, ImageGrid, Picture, Spec


@final
class CLIP(Method):
    """Contrastive language-image pretraining; negatives are all other pairs of all ranks.

    Both encoders' features are projected linearly into one space. The factor of the similarities is learned as its
    logarithm and never exceeds ``max_logit_scale``. Features are those of the image encoder; the common space is what
    retrieval and zero-shot classification use.

    Args:
        encoder: An image and a text encoder.
        optim: Optimizer and schedule.
        crop: Draws one view of each image, shape (B, C, H, W) in [0, 1].
        projection_dim: Width of the common space.
        temperature: Temperature to start from, the inverse of the learned factor.
        max_logit_scale: Largest factor.

    Raises:
        ValueError: If the temperature is not in [1 / max_logit_scale, infinity).

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021). arXiv:2103.00020
    """

    takes: ClassVar[type[Spec] | None] = PairSpec
    coupled_by: ClassVar[str] = "all other pairs of the batch are its negatives"
    min_samples: ClassVar[int] = 2

    def __init__(
        self,
        encoder: DualEncoder,
        optim: Optim,
        crop: nn.Module,
        *,
        projection_dim: int = 512,
        temperature: float = 0.07,
        max_logit_scale: float = 100.0,
    ) -> None:
        super().__init__(encoder, optim)
        if max_logit_scale <= 0 or temperature < 1 / max_logit_scale:
            raise ValueError(
                f"CLIP starts from a factor 1 / temperature of at most max_logit_scale, found temperature={temperature} "
                f"and max_logit_scale={max_logit_scale}. The paper's are 0.07 and 100."
            )
        self.encoder: DualEncoder
        self.crop = crop
        self.max_logit_scale = max_logit_scale
        self.image_projector = nn.Linear(encoder.image.embed_dim, projection_dim, bias=False)
        self.text_projector = nn.Linear(encoder.text.embed_dim, projection_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Project a crop of each image and its caption; both directions of InfoNCE over the pairs of all ranks."""
        z_image = self.project_images(self.crop(batch["image"]))
        z_text = self.project_texts(batch)
        scale = self.log_scale.exp()
        loss = clip_loss(distributed.gather(z_image), distributed.gather(z_text), logit_scale=scale)
        return self.log_losses(loss, logit_scale=scale)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the factor of the similarities below its bound."""
        self.log_scale.clamp_(max=math.log(self.max_logit_scale))

    def project_images(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in the common space, (B, P), any scale."""
        return self.image_projector(self.encoder.image.embed({"image": images}))  # type: ignore[no-any-return]

    def project_texts(self, batch: Batch) -> Tensor:
        """Texts of a batch in the common space, (B, P), any scale."""
        return self.text_projector(self.encoder.text.embed(batch))  # type: ignore[no-any-return]

    def joint_embedding(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors in the common space by kind, ``image`` and ``text``, each (B, P), for the columns in the batch."""
        z = {}
        if "image" in batch:
            z["image"] = F.normalize(self.project_images(batch["image"]).float(), dim=1)
        if "input_ids" in batch:
            z["text"] = F.normalize(self.project_texts(batch).float(), dim=1)
        return z

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features of images, and images and texts in the common space."""
        return {**super().capabilities(), "joint_embedding": self.in_eval_mode(torch.no_grad()(self.joint_embedding))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Crops, and cosine similarities of 32 images and captions, black at 0 or below and white at 1."""
        rows = {name: column[:32] for name, column in batch.items()}
        z = self.in_eval_mode(self.joint_embedding)(rows)
        images = rows["image"][:12]
        crops = torch.stack([images.float() / 255, self.crop(images)])
        similarities = (z["image"] @ z["text"].T).clamp(0, 1)[None, None, None]
        return {
            "views": ImageGrid(images=crops, row_names=("image", "crop"), caption=of_views.CAPTIONS["views"]),
            "similarities": ImageGrid(images=similarities, caption=CAPTIONS["similarities"]),
        }
