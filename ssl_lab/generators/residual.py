"""Residual blocks that turn a map of codes into an image."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_lab.modalities.image import ImageSpec


class ResidualDecoder(nn.Module):
    """Two residual blocks on a map, then transposed 4x4 convolutions double its sides up to the image's.

    Args:
        spec: The image data to decode.
        in_channels: Channels D of the map.
        map_size: Height and width of the map.
        hidden_dim: Channels in between.

    Raises:
        ValueError: If doubling the map's sides does not lead to the image's.

    References:
        van den Oord et al., Neural Discrete Representation Learning (2017), section 4.1. arXiv:1711.00937
    """

    def __init__(self, spec: ImageSpec, *, in_channels: int, map_size: tuple[int, int], hidden_dim: int = 128) -> None:
        super().__init__()
        channels, height, width = spec.shape
        depth = (height // map_size[0]).bit_length() - 1
        if (map_size[0] * 2**depth, map_size[1] * 2**depth) != (height, width):
            raise ValueError(
                f"A map of {map_size[0]}x{map_size[1]} codes cannot be doubled to images of {height}x{width}. Choose an "
                "encoder whose halvings divide the image's sides, such as one with fewer entries of encoder.widths."
            )
        layers: list[nn.Module] = [nn.Conv2d(in_channels, hidden_dim, 3, padding=1)]
        layers += [ResidualBlock(hidden_dim), ResidualBlock(hidden_dim), nn.ReLU(inplace=True)]
        for _ in range(depth - 1):
            layers += [nn.ConvTranspose2d(hidden_dim, hidden_dim, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        if depth:
            layers.append(nn.ConvTranspose2d(hidden_dim, channels, 4, stride=2, padding=1))
        else:
            layers.append(nn.Conv2d(hidden_dim, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Images (B, C, H, W), unbounded, from maps (B, D, h, w)."""
        return self.layers(maps)  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution to a quarter of the channels, ReLU, 1x1 convolution back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, max(1, channels // 4), 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(max(1, channels // 4), channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.layers(x)  # type: ignore[no-any-return]
