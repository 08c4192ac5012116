"""Networks on either side of an encoder that several methods share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Batch, Encoder


class Projector(nn.Sequential):
    """The MLP between features and loss: hidden layers with batch normalisation and ReLU, a linear output.

    Predictors have the same form.

    Args:
        embed_dim: Width of the features.
        hidden_dim: Width of each hidden layer.
        out_dim: Width of the projections.
        num_layers: Number of linear layers, at least 1.
        last_norm: Whether batch normalisation without scale and shift follows the output, as in SimSiam and MoCo v3.
    """

    def __init__(
        self, embed_dim: int, *, hidden_dim: int, out_dim: int, num_layers: int = 2, last_norm: bool = False
    ) -> None:
        dims = [embed_dim, *[hidden_dim] * (num_layers - 1)]
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise(dims):
            layers += [nn.Linear(d_in, d_out, bias=False), nn.BatchNorm1d(d_out), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(dims[-1], out_dim, bias=not last_norm))
        if last_norm:
            layers.append(nn.BatchNorm1d(out_dim, affine=False))
        super().__init__(*layers)


class ProjectedEncoder(nn.Sequential):
    """An encoder and the heads that follow it as one network, which a teacher can copy and follow.

    Args:
        encoder: A batch to features.
        heads: What the features pass one after the other, each under its name in the state dict.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, **heads: nn.Module) -> None:
        super().__init__(OrderedDict(encoder=encoder, **heads))

    def forward(self, batch: Batch) -> Tensor:
        """Outputs (B, D) of the last head."""
        x = self.encoder.embed(batch)
        for head in list(self)[1:]:
            x = head(x)
        return x


Activation: TypeAlias = Literal["relu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(dims: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers between the given widths, with an activation between each two.

    Raises:
        ValueError: If there is no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"There is no activation {activation!r}. Choose from {', '.join(ACTIVATIONS)}.")
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(dims):
        layers += [nn.Linear(d_in, d_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def has_batch_statistics(module: nn.Module) -> bool:
    """Return whether a network's output for a sample depends on the rest of the batch, by batch normalisation."""
    return any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())


def num_doublings(spec: ImageSpec) -> int:
    """Count the halvings of an image's sides before fewer than four pixels remain, at least one.

    Raises:
        ValueError: If a side cannot be halved that often.
    """
    height, width = spec.shape[1:]
    depth = 1
    while min(height, width) // 2 ** (depth + 1) >= 2 and height % 2 ** (depth + 1) == width % 2 ** (depth + 1) == 0:
        depth += 1
    depth = min(depth, 4)
    if height % 2 or width % 2:
        raise ValueError(
            f"Convolutional generators halve and double image sides, found {height}x{width}. Set data.image_size to an "
            "even number, best a power of two."
        )
    return depth


class Prototypes(nn.Module):
    """Cosine similarity of projections with K learned directions, in fp32 whatever the autocast precision.

    The gradient passes through the normalisation of both sides: weight normalisation with a fixed length of one.

    Args:
        dim: Width D of the projections.
        num_prototypes: Number of directions K.

    Raises:
        ValueError: If there are fewer than two.

    References:
        Salimans and Kingma, Weight Normalization (2016). arXiv:1602.07868
    """

    def __init__(self, dim: int, num_prototypes: int) -> None:
        super().__init__()
        if num_prototypes < 2:
            raise ValueError(
                f"One prototype would take all samples, found num_prototypes={num_prototypes}. Set 2 or more."
            )
        self.weight = nn.Parameter(F.normalize(torch.randn(num_prototypes, dim), dim=1))

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale the directions to length 1: steps across a sphere lead outwards, and the rate along it would fall."""
        self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, z: Tensor) -> Tensor:
        """Cosines (..., K) of projections (..., D) of any scale."""
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z.to(self.weight.dtype), dim=-1)
            return F.linear(z, F.normalize(self.weight, dim=1))
