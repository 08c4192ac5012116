"""Base class of methods that compare the embeddings of several views of a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Views, halves
from ssl_lab.types import Batch, Encoder, Picture


class JointEmbedding(Method):
    """A method whose objective compares random views of a sample; it knows no modality, its views and its encoder do.

    Attributes:
        several_sizes: Whether it takes views of several sizes, as :class:`~ssl_lab.pretext.multi_crop.MultiCrop` draws.

    Args:
        encoder: The network whose features are wanted.
        optim: Optimizer and schedule.
        views: Draws two views of each sample of a batch.

    Raises:
        ValueError: If views and encoder are of two modalities, or the method does not take views of this kind.
    """

    several_sizes: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, optim: Optim, views: Views) -> None:
        super().__init__(encoder, optim)
        name, found = type(self).__name__, type(views).__name__
        if not isinstance(views, Views) or views.several_sizes != self.several_sizes:
            wanted = (
                ("views of several sizes", "multi_crop") if self.several_sizes else ("two views of one size", "strong")
            )
            raise ValueError(
                f"{name} compares {wanted[0]}, which {found} does not draw. Choose others, such as "
                f"views@method.views={wanted[1]}."
            )
        views.takes.of(encoder.spec, f"{name}, which compares views of {found},")
        self.views = views

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features of samples, and of their views."""
        return {**super().capabilities(), "view_features": self.view_features}

    @torch.no_grad()
    def view_features(self, batch: Batch, num_views: int) -> Tensor:
        """Features of random views of a batch of B samples, the largest ones, shape (num_views, B, D)."""
        features: list[Tensor] = []
        while len(features) < num_views:
            drawn = self.views(batch)
            features.extend(self.features(view) for view in halves(drawn[0] if self.several_sizes else drawn))
        return torch.stack(features[:num_views])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Draw the method's view of a batch."""
        return self.views.show(batch)
