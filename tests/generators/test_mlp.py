import pytest
import torch
from ranks.fixed import IMAGES

from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.generators.mlp import MLPGenerator


def widths(network):
    return [tuple(p.shape) for p in network.parameters() if p.ndim == 2]


def test_latents_become_images():
    network = MLPGenerator(IMAGES, latent_dim=3, hidden_dims=(5, 7), activation="tanh")
    assert widths(network) == [(5, 3), (7, 5), (64, 7)]
    z = torch.randn(4, 3)
    first, second, last = (m for m in network.layers if isinstance(m, torch.nn.Linear))
    expected = last(torch.tanh(second(torch.tanh(first(z))))).view(4, 1, 8, 8)
    torch.testing.assert_close(network(z), expected)


def test_images_become_features():
    network = MLPEncoder(IMAGES, hidden_dims=(5, 7))
    assert network.embed_dim == 7 and widths(network) == [(5, 64), (7, 5)]
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    features = network.embed({"image": images})
    first, last = (m for m in network.layers if isinstance(m, torch.nn.Linear))
    x = ((images / 255 - 0.5) / 0.3).flatten(1)
    torch.testing.assert_close(features, torch.relu(last(torch.relu(first(x)))))


@pytest.mark.parametrize("kind", [MLPEncoder, MLPGenerator])
def test_an_unknown_activation_is_refused(kind):
    settings = {"latent_dim": 3} if kind is MLPGenerator else {}
    with pytest.raises(ValueError, match="Choose from relu, tanh"):
        kind(IMAGES, activation="gelu", **settings)
