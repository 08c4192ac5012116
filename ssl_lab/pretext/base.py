"""Base classes that draw the views of joint-embedding methods and change samples at random, for any modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from ssl_lab.types import Batch, Picture, Spec


class Views(nn.Module, ABC):
    """Draws random views of a whole batch on its device. It has no parameters and no buffers.

    A batch of B rows becomes one of two views of each: 2B rows, the first views of all samples, then the second ones. It has
    the columns that an encoder reads and no others: labels and indices stay with the batch.

    Attributes:
        takes: Kind of data it takes.
        several_sizes: Whether there are further, smaller views. Then ``forward`` returns a tuple of batches, one for each
            size, of which the first has the two largest views and every other one any number of views, view after view.
    """

    takes: ClassVar[type[Spec]]
    several_sizes: ClassVar[bool] = False

    @abstractmethod
    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch | tuple[Batch, ...]:
        """Two views of each sample, and smaller ones with ``several_sizes``; the generator None is the global stream."""

    def show(self, batch: Batch) -> Mapping[str, Picture]:
        """Some samples beside their views, by the picture's name; nothing by default."""
        return {}


class Augmentation(nn.Module, ABC):
    """Changes the samples of a batch at random, on its device, and leaves their labels as they are.

    Attributes:
        column: The column that it changes.
    """

    column: ClassVar[str]

    @abstractmethod
    def forward(self, batch: Batch) -> Batch:
        """The batch with a changed column."""


def halves(views: Batch) -> tuple[Batch, Batch]:
    """Each of two views as a separate batch."""
    split = {name: column.chunk(2) for name, column in views.items()}
    return {name: first for name, (first, _) in split.items()}, {name: second for name, (_, second) in split.items()}
