"""What every encoder of conf/encoder says of its layers."""

from contextlib import nullcontext

import pytest
import torch
from arrays import ArrayImages, tiny_vq_vae
from omegaconf import OmegaConf
from transformers import AlbertConfig, AlbertForMaskedLM

from ssl_lab.cli.build import build_encoder
from ssl_lab.cli.paths import config_dir
from ssl_lab.encoders.code_gpt import CodeGPT
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.encoders.resnet import ResNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.layers import Layers
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.testing.encoders import check_layers, check_maps
from ssl_lab.types import NotOfferedError

TEXT = TextSpec(length=12, vocab_size=50, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))
IMAGES = ImageSpec(shape=(3, 32, 32), mean=(0.4,) * 3, std=(0.3,) * 3)
TIMM = ("test_vit", "test_convnext", "test_efficientnet")


def build(name, *, on="meta"):
    """The encoder, small where its kind allows; without weights where nothing but its layers is asked for."""
    if name in TIMM:
        return TimmModel(IMAGES, name=name)
    if name == "code_gpt_mini":
        return CodeGPT(ArrayImages().spec, codes=tiny_vq_vae(), embed_dim=16, num_heads=2)
    if name == "dual":
        pairs = PairSpec(image=IMAGES, text=TEXT)
        return DualEncoder(
            pairs, image=lambda s: ConvNet(s, widths=(4, 8)), text=lambda s: TextTransformer(s, size="tiny")
        )
    cfg = OmegaConf.load(config_dir() / "encoder" / f"{name}.yaml")
    if is_text := "size" in cfg:
        cfg.size = "tiny"
    with torch.device(on) if not is_text else nullcontext():
        return build_encoder(cfg, TEXT if is_text else IMAGES)


NAMES = sorted({path.stem for path in (config_dir() / "encoder").glob("*.yaml")} - {"timm"}) + [*TIMM]


@pytest.mark.parametrize("name", NAMES)
def test_layers_hold_each_parameter_once_and_blocks_in_their_order(name):
    encoder = build(name)
    check_layers(lambda: encoder)
    layers = encoder.layer_groups()
    others = list(encoder.text.transformer.encoder.layer) if name == "dual" else []
    assert layers.modules[len(layers.blocks) :] == others
    assert len(layers.blocks) > 1 or name in ("mlp", "dcgan")
    assert layers.embeddings or name in ("mlp", "dcgan", "convnet", "sngan", "dual")


def test_what_stands_between_blocks_belongs_to_the_next():
    stem, first, between, second, last = (torch.nn.Linear(1, 1, bias=False) for _ in range(5))
    network = torch.nn.Sequential(stem, first, between, second, last)
    layers = Layers.around(network, [first, second])
    assert layers.embeddings == [stem.weight] and layers.rest == [last.weight]
    assert layers.blocks == [[first.weight], [between.weight, second.weight]]
    assert list(layers.lr_scales(0.5).values()) == [0.125, 0.25, 0.5, 0.5, 1]


def test_a_vit_of_one_block_has_that_block():
    encoder = ViT(IMAGES, depth=1, embed_dim=16, num_heads=2)
    layers = encoder.layer_groups()
    assert layers.modules == [encoder.blocks[0]] and layers.rest == list(encoder.blocks[1].parameters())
    assert layers.embeddings == [encoder.class_token, *encoder.patch_embed.parameters()]


def test_layers_that_share_their_parameters_are_no_blocks(tmp_path):
    config = AlbertConfig(
        vocab_size=50, embedding_size=4, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )
    AlbertForMaskedLM(config).save_pretrained(tmp_path)
    encoder = TextTransformer(TEXT, pretrained=str(tmp_path))
    layers = encoder.layer_groups()
    assert layers.rest == list(encoder.parameters()) and not layers.blocks and not layers.modules
    with pytest.raises(ValueError, match="layer_decay=0.5: TextTransformer has no repeated blocks"):
        layers.lr_scales(0.5)


def test_what_needs_blocks_is_refused_by_name_without_them():
    layers = MLPEncoder(IMAGES, hidden_dims=(4,)).layer_groups()
    with pytest.raises(ValueError, match="layer_decay=0.5: MLPEncoder has no repeated blocks"):
        layers.lr_scales(0.5)
    with pytest.raises(ValueError, match=r"freeze=embeddings: MLPEncoder has 0 blocks. Choose from none, encoder\."):
        layers.freeze("embeddings")
    assert set(layers.lr_scales(1.0).values()) == {1.0}
    layers.freeze("encoder")
    assert not any(p.requires_grad for p in layers.rest)


def _pooled(name, encoder, last):
    if name == "dcgan":
        return last.flatten(1)
    if name == "sngan":
        return last.sum((2, 3))
    if name in ("test_convnext", "test_vit", "test_efficientnet"):
        return encoder.network.forward_head(last.flatten(2).mT if name == "test_vit" else last)
    return last.mean((2, 3))


MAPS = ["convnet", "resnet18", "resnet50", "dcgan", "sngan", "vit_mae_tiny", "code_gpt_mini", "dual", *TIMM]


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_their_strides_and_the_last_is_what_embed_pools(name):
    torch.manual_seed(0)
    if name == "vit_mae_tiny":
        encoder = ViT(IMAGES, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    elif name == "test_vit":
        encoder = TimmModel(IMAGES, name=name, options={"global_pool": "avg", "class_token": False, "patch_size": 8})
    elif name == "convnet":
        encoder = ConvNet(IMAGES, widths=(4, 8, 8))
    elif name in ("dcgan", "sngan", "resnet18", "resnet50"):
        encoder = build_encoder(OmegaConf.load(config_dir() / "encoder" / f"{name}.yaml"), IMAGES)
    else:
        encoder = build(name)
    encoder.eval()
    size = 8 if name == "code_gpt_mini" else 32
    batch = {"image": torch.rand(2, 1 if size == 8 else 3, size, size)}
    with torch.no_grad():
        maps = encoder.maps(batch)
        torch.testing.assert_close(_pooled(name, encoder, maps[-1].tensor), encoder.embed(batch))
    strides = [found.stride for found in maps]
    assert strides == sorted(strides) and (name in ("sngan",) or len(set(strides)) == len(strides))
    check_maps(lambda: encoder)


def test_large_images_get_the_published_strides():
    spec = ImageSpec(shape=(3, 72, 72), mean=(0.4,) * 3, std=(0.3,) * 3)
    encoder = ResNet(spec).eval()
    with torch.no_grad():
        maps = encoder.maps({"image": torch.rand(1, 3, 72, 72)})
    assert [(found.stride, found.tensor.shape[2]) for found in maps] == [(4, 18), (8, 9), (16, 5), (32, 3)]


def test_a_class_token_stands_beside_the_patches():
    encoder = ViT(IMAGES, patch_size=8, embed_dim=16, depth=2, num_heads=2, pooling="class").eval()
    batch = {"image": torch.rand(2, 3, 32, 32)}
    (found,) = encoder.maps(batch)
    tokens = encoder(batch["image"])
    assert torch.equal(found.tensor[:, :, 1, 2], tokens[:, 1 + 4 + 2]) and torch.equal(
        encoder.embed(batch), tokens[:, 0]
    )


@pytest.mark.parametrize("name", ["mlp", "bert_tiny"])
def test_who_has_no_maps_says_so_by_name(name):
    encoder = build(name)
    with pytest.raises(NotOfferedError, match=f"maps of a {type(encoder).__name__}: it gives one vector per sample"):
        encoder.maps({})
