"""Bare networks of other libraries as encoders."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from ssl_lab.encoders.network import Network
from ssl_lab.modalities.image import ImageSpec


def spec(channels=3, size=32):
    return ImageSpec(shape=(channels, size, size), mean=(0.4,) * channels, std=(0.2,) * channels)


def small_vit():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=5))


BUILD = {
    "torchvision": (lambda: torchvision.models.resnet18(num_classes=7), 512),
    "torchvision without fc": (lambda: torchvision.models.mobilenet_v3_small(), 576),
    "timm": (lambda: timm.create_model("resnet10t", num_classes=7), 512),
    "timm of one size": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=7), 192),
    "timm whose head is kept": (lambda: timm.create_model("convnext_atto"), 320),
    "transformers": (small_vit, 16),
    "maps": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), 6),
}


@pytest.mark.parametrize("name", BUILD)
def test_a_network_gives_features_without_its_classifier_and_keeps_it_itself(name):
    build, width = BUILD[name]
    network = build().eval()
    x = torch.rand(2, 3, 32, 32)
    before = network(x)
    encoder = Network(network, spec()).eval()
    features = encoder.embed({"image": x})
    assert features.shape == (2, width) and encoder.embed_dim == width
    after = network(x)
    before, after = (getattr(each, "logits", each) for each in (before, after))
    torch.testing.assert_close(before, after)
    shared = {id(p) for p in network.parameters()} & {id(p) for p in encoder.parameters()}
    assert shared, "training the encoder trains the network"
    torch.testing.assert_close(encoder.embed({"image": (x * 255).round().byte()}), features, atol=0.05, rtol=0.1)


def test_features_are_those_of_the_network_with_the_normalisation_that_it_wants():
    network = timm.create_model("resnet10t", num_classes=0).eval()
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(Network(network, spec(size=64)).eval().embed({"image": x}), network((x - mean) / std))
    bare = torchvision.models.resnet18().eval()
    own = Network(bare, spec(size=64), mean=(0, 0, 0), std=(1, 1, 1)).eval()
    bare.fc = nn.Identity()
    torch.testing.assert_close(own.embed({"image": x}), bare(x))


def test_a_fresh_copy_has_other_weights_everywhere():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    encoder = Network(network, spec())
    before = {name: p.clone() for name, p in encoder.named_parameters()}
    other = encoder.fresh()
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    same = [name for name, p in other.named_parameters() if p.ndim > 1 and torch.equal(p, before[name])]
    assert not same


def test_what_cannot_read_the_images_is_refused():
    with pytest.raises(ValueError, match="takes 3 channels. Convert the images to RGB"):
        Network(torchvision.models.resnet18(), spec(channels=1))
    with pytest.raises(ValueError, match="Cannot use Linear as an encoder of images"):
        Network(nn.Linear(3, 3), spec())
    with pytest.raises(ValueError, match=r"returns tuple, which holds no features"):
        Network(Pair(), spec())


class Pair(nn.Module):
    """Returns what holds no features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x), x
