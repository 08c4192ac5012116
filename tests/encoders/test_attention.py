"""Attention that is taken out of an encoder is the one that its forward pass applies."""

import pytest
import torch
from arrays import ArrayImages

from ssl_lab.encoders.attention import patch_attention, token_attention
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.modalities.text import TextSpec

TEXT = TextSpec(length=12, vocab_size=50, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))


def images():
    return {"image": ArrayImages().columns("val")["image"][:5]}


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_a_vit_looks_at_patches(pooling):
    encoder = ViT(ArrayImages().spec, patch_size=2, embed_dim=16, depth=2, num_heads=4, pooling=pooling).eval()
    taken = {}
    layer = encoder.blocks[1].attn
    layer.register_forward_hook(lambda module, x, y: taken.update(x=x[0], y=y))
    weights = patch_attention(encoder, images())
    assert weights.shape == (5, 4, 4, 4)
    # Weights of all pairs times the values are what the layer has returned.
    x = taken["x"]
    q, k, v = layer.qkv(x).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    whole = (q @ k.mT * layer.scale).softmax(-1)
    torch.testing.assert_close(layer.proj((whole @ v).transpose(1, 2).flatten(2)), taken["y"])
    seen = whole[:, :, 0, 1:] if pooling == "class" else whole[:, :, 1:, 1:].mean(2)
    torch.testing.assert_close(weights, seen.unflatten(2, (4, 4)).detach())


def test_timms_vits_are_looked_into_and_others_are_not():
    options = {"patch_size": 2, "embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 8}
    vit = TimmModel(ArrayImages().spec, name="vit_tiny_patch16_224", options=options).eval()
    assert patch_attention(vit, images()).shape == (5, 3, 4, 4)
    assert patch_attention(ConvNet(ArrayImages().spec, widths=(8,)), images()) is None


def test_what_fails_leaves_nothing_in_the_encoder():
    encoder = ViT(ArrayImages().spec, patch_size=2, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(KeyError):
        patch_attention(encoder, {})
    assert not any(module._forward_pre_hooks for module in encoder.modules())


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2"])
def test_tokens_look_at_real_tokens_and_the_features_stay_the_same(architecture):
    encoder = TextTransformer(TEXT, architecture=architecture, size="tiny", dropout=0.0).eval()
    ids = torch.randint(5, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    before = encoder.embed(batch)
    weights = token_attention(encoder, batch)
    assert torch.equal(encoder.embed(batch), before)
    assert weights.shape[0] == 2 and weights.shape[2:] == (12, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    if architecture == "gpt2":
        assert weights.triu(1).abs().max() == 0
    else:
        assert weights[1, :, :, 8:].abs().max() == 0 and (weights[0] > 0).all()
