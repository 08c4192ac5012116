"""The DCGAN discriminator without its last layer."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_lab.encoders.image import ImageEncoder, outputs
from ssl_lab.heads import num_doublings
from ssl_lab.modalities.image import ImageSpec


class DCGANEncoder(ImageEncoder):
    """Strided 4x4 convolutions with leaky ReLU down to a few pixels, then flattened; the first has no normalisation.

    Args:
        spec: The image data it is built for.
        width: Channels after the first convolution, doubled at each further one.
        spectral_norm: Normalise each kernel by its largest singular value instead of batch normalisation (Miyato et
            al., 2018), which steadies small discriminators.

    References:
        Radford et al., Unsupervised Representation Learning with DCGANs (2015). arXiv:1511.06434
    """

    def __init__(self, spec: ImageSpec, *, width: int = 64, spectral_norm: bool = True) -> None:
        depth = num_doublings(spec)
        start = [size // 2**depth for size in spec.shape[1:]]
        super().__init__(spec, embed_dim=width * 2 ** (depth - 1) * start[0] * start[1])
        self.strides = tuple(2 ** (level + 1) for level in range(depth))
        layers: list[nn.Module] = []
        channels = spec.shape[0]
        for level in range(depth):
            out = width * 2**level
            convolution = nn.Conv2d(channels, out, 4, stride=2, padding=1)
            layers.append(nn.utils.parametrizations.spectral_norm(convolution) if spectral_norm else convolution)
            if level > 0 and not spectral_norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            channels = out
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def encode(self, x: Tensor) -> Tensor:
        """Flattened activations of the last convolution."""
        return self.layers(x)  # type: ignore[no-any-return]

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Activations of each convolution."""
        found = outputs(self.layers[:-1], x)
        return tuple(y for y, layer in zip(found, self.layers, strict=False) if isinstance(layer, nn.LeakyReLU))
