"""Residual networks from torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ssl_lab.encoders.image import SpatialEncoder, outputs, require_channels_last, with_channels
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Published

SMALL_IMAGE = 64


class ResNet(SpatialEncoder):
    """A torchvision ResNet without its classifier.

    Images up to 64 pixels get the CIFAR stem of the literature: a 3x3 convolution of stride 1 and no max-pooling.

    Args:
        spec: The image data it is built for.
        depth: 18, 34 or 50.

    Raises:
        ValueError: If the depth is unknown.

    References:
        He et al., Deep Residual Learning for Image Recognition (2015). arXiv:1512.03385
    """

    def __init__(self, spec: ImageSpec, *, depth: int = 18) -> None:
        builders = {
            18: torchvision.models.resnet18,
            34: torchvision.models.resnet34,
            50: torchvision.models.resnet50,
        }
        if depth not in builders:
            raise ValueError(f"There is no ResNet-{depth} here. Choose encoder.depth from {sorted(builders)}.")
        self.depth = depth
        network = builders[depth](weights=None, zero_init_residual=True)
        super().__init__(spec, embed_dim=network.fc.in_features)
        channels, height, width = spec.shape
        small = max(height, width) <= SMALL_IMAGE
        self.strides = (1, 2, 4, 8) if small else (4, 8, 16, 32)
        if small:
            network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        network.fc = nn.Identity()
        self.depth = depth
        self.network: Any = require_channels_last(network)

    @property
    def title(self) -> str:
        """ResNet and its depth."""
        return f"ResNet-{self.depth}"

    def published(self, name: str) -> Published:
        """Torchvision's weights, such as ``IMAGENET1K_V2``; a download at first use.

        Raises:
            ValueError: If torchvision has no such weights, or they cannot be reached.
        """
        known = torchvision.models.get_model_weights(f"resnet{self.depth}")
        if name != "DEFAULT" and name not in known.__members__:
            raise ValueError(
                f"Cannot start ResNet-{self.depth} from encoder.weights={name}: there is no such file, and torchvision has "
                f"{', '.join(known.__members__)}. Give one of these names, a file or a folder."
            )
        weights: Any = known[name] if name != "DEFAULT" else known.DEFAULT
        try:
            tensors = torch.hub.load_state_dict_from_url(
                weights.url, check_hash=True, weights_only=True, map_location="cpu"
            )
        except OSError as error:
            raise ValueError(
                f"Cannot download {weights.name} of ResNet-{self.depth} for encoder.weights: {weights.url} cannot be reached "
                f"({error}). Download it where you can, and give encoder.weights= the path of the file."
            ) from error
        preset = weights.transforms()
        return Published(tensors=tensors, mean=tuple(preset.mean), std=tuple(preset.std))

    def converted(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """The first convolution summed over its channels for grey images."""
        return with_channels(tensors, "conv1.weight", self.spec.shape[0])

    def encode(self, x: Tensor) -> Tensor:
        """Globally pooled features of the last stage."""
        return self.network(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each of the four stages."""
        n = self.network
        x = n.maxpool(n.relu(n.bn1(n.conv1(x.contiguous(memory_format=torch.channels_last)))))
        return outputs((n.layer1, n.layer2, n.layer3, n.layer4), x)
