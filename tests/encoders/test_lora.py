"""Adapters: what trains, what the encoder computes, merging, and what is refused."""

import pytest
import torch

from ssl_lab.encoders.lora import add_adapters, has_adapters, merge_adapters, trained_words, without_adapters
from ssl_lab.encoders.resnet import ResNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec

IMAGES = ImageSpec(shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
TEXTS = TextSpec(length=16, vocab_size=64, pad_id=0, mask_id=1, eos_id=2, special_ids=(0, 1, 2), continues_word=())
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def encoders():
    yield ViT(IMAGES, **VIT)
    yield TimmModel(IMAGES, name="vit_tiny_patch16_224", options=VIT)
    for architecture in ("bert", "gpt2", "t5", "modernbert"):
        yield TextTransformer(TEXTS, architecture=architecture, size="tiny")


@pytest.mark.parametrize("encoder", encoders(), ids=lambda encoder: encoder.title)
def test_an_adapted_encoder_begins_as_it_was_learns_by_adapters_alone_and_merges(encoder):
    encoder.eval()
    batch = encoder.spec.example(4)
    begin = encoder.embed(batch).detach()
    whole = sum(p.numel() for p in encoder.parameters())
    frozen = dict(encoder.named_parameters())
    add_adapters(encoder, rank=4)
    torch.testing.assert_close(encoder.embed(batch), begin)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert trained and not set(trained) & set(frozen.values()) and sum(p.numel() for p in trained) < whole
    encoder.embed(batch).square().sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in trained)
    with torch.no_grad():
        for p in trained:
            p += 0.05 * torch.randn_like(p)
    learned = encoder.embed(batch).detach()
    assert not torch.allclose(learned, begin, atol=1e-4)
    copy = without_adapters(encoder)
    assert has_adapters(encoder) and not has_adapters(copy)
    torch.testing.assert_close(copy.embed(batch), learned, rtol=1e-4, atol=1e-4)
    merge_adapters(encoder)
    assert sum(p.numel() for p in encoder.parameters()) == whole
    assert encoder.state_dict().keys() == copy.state_dict().keys()


def test_an_adapter_is_what_its_paper_says():
    encoder = ViT(IMAGES, **VIT).eval()
    layer = encoder.blocks[0].mlp.fc1
    add_adapters(encoder, rank=2, alpha=3, layers=["fc1"])
    adapted = encoder.blocks[0].mlp.fc1
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, 32)
    torch.testing.assert_close(adapted(x), layer(x) + 1.5 * x @ a.T @ b.T)
    assert not hasattr(encoder.blocks[0].mlp.fc2, "lora_A")


def test_the_count_of_what_trains():
    encoder = ViT(IMAGES, **VIT)
    whole = sum(p.numel() for p in encoder.parameters())
    add_adapters(encoder, rank=2, layers=["attn.qkv"])
    method = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(3, 4)})
    num = 2 * 2 * (32 + 96)
    assert trained_words(method, encoder).startswith(
        f"LoRA trains {num:,} of {whole + num:,} parameters of the encoder"
    )
    assert trained_words(method, encoder).endswith("and 16 beside it")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank of at least 1"),
        ({"rank": 4, "dropout": 1.0}, "dropout of 0 to below 1"),
        ({"rank": 4, "alpha": 0}, "alpha above 0"),
        ({"rank": 64}, "as many parameters as the layers"),
        ({"rank": 4, "layers": ["qkv", "query"]}, "are called qkv, proj, fc1, fc2"),
        ({"rank": 4, "layers": []}, "are called qkv"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        add_adapters(ViT(IMAGES, **VIT), **settings)


def test_an_encoder_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="has no linear layers.*Choose a ViT or a text transformer"):
        add_adapters(ResNet(IMAGES), rank=4)
