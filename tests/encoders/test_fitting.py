"""Published layouts in our encoders: the features of the source network, and what is said and refused."""

import argparse
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.fitting import fit
from ssl_lab.encoders.resnet import ResNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.encoders.vit import ViT
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tensors import read_tensors

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}


def spec(size=32, channels=3):
    return ImageSpec(shape=(channels, size, size), mean=(0.5,) * channels, std=(0.25,) * channels)


def images(size=32, channels=3):
    return torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def same(encoder, network, x):
    with torch.no_grad():
        found, wanted = encoder.eval().embed({"image": x}), network.eval()((x - 0.5) / 0.25)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def vit(**arguments):
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **SMALL, **arguments)


def timm_vit(size=32):
    return TimmModel(spec(size), name="vit_tiny_patch16_224", options=SMALL)


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"state_dict": {f"module.encoder.{k}": v for k, v in t.items()}}]
)
def test_a_torchvision_resnet_gives_its_own_features_and_leaves_its_classifier(tmp_path, wrap):
    network = torchvision.models.resnet18(num_classes=7)
    torch.save(wrap(network.state_dict()), tmp_path / "x.pth")
    encoder = ResNet(spec(72))
    fitted = fit(encoder, read_tensors(tmp_path / "x.pth"), "x.pth")
    network.fc = nn.Identity()
    same(encoder, network, images(72))
    assert not fitted.new and not fitted.other_shapes
    assert [name.rpartition("module.encoder.")[2] for name in fitted.unused] == ["fc.weight", "fc.bias"]
    assert "122 of 122" not in fitted.line and "120 of 120 tensors of the encoder from x.pth" in fitted.line


def test_of_a_dino_checkpoint_the_teacher_is_taken_and_its_arguments_are_data(tmp_path):
    teacher, student = vit(), vit()
    heads = {"head.mlp.0.weight": torch.zeros(2, 2)}
    contents = {
        "student": {f"module.backbone.{name}": tensor for name, tensor in student.state_dict().items()},
        "teacher": {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()} | heads,
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small"),
    }
    torch.save(contents, tmp_path / "dino.pth")
    encoder = timm_vit()
    fitted = fit(encoder, read_tensors(tmp_path / "dino.pth"), "dino.pth")
    same(encoder, teacher, images())
    assert fitted.prefix == "teacher.backbone." and "(below teacher.backbone)" in fitted.line


def test_position_embeddings_are_interpolated_as_timm_does(tmp_path):
    network = vit()
    encoder = timm_vit(48)
    fitted = fit(encoder, network.state_dict(), "x")
    network.set_input_size((48, 48))
    same(encoder, network, images(48))
    assert "position embeddings interpolated from 4x4 to 6x6 patches" in fitted.line


def mae_positions(dim, side):
    """As facebookresearch/mae makes them: the column's sines and cosines first, and a row of zeros for the class token."""
    rows = []
    omega = [1 / 10000 ** (k / (dim // 4)) for k in range(dim // 4)]
    for y in range(side):
        for x in range(side):
            parts = [
                torch.tensor([fn(torch.tensor(v * w)) for w in omega]) for v in (x, y) for fn in (torch.sin, torch.cos)
            ]
            rows.append(torch.cat(parts))
    return torch.cat([torch.zeros(1, dim), torch.stack(rows)]).unsqueeze(0)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_a_published_mae_in_the_vit_that_mae_pretrains_gives_the_same_features_in_another_order(pooling):
    network = vit(global_pool="token" if pooling == "class" else "avg", fc_norm=False)
    network.pos_embed.data = mae_positions(24, 4)
    for p in network.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, 0.5, 0.3)  # else a wrong order of norms and biases would not show
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_blocks.0.attn.proj.weight": torch.zeros(16, 16)}
    encoder = ViT(spec(), pooling=pooling, **SMALL)
    fitted = fit(encoder, {f"model.{name}": t for name, t in {**network.state_dict(), **decoder}.items()}, "mae.pth")
    with torch.no_grad():
        wanted = network.eval()((images() - 0.5) / 0.25)
        found = encoder.eval().embed({"image": images()})
    quarters = wanted.chunk(4, 1)
    torch.testing.assert_close(found, torch.cat([quarters[k] for k in (2, 0, 3, 1)], 1), rtol=1e-4, atol=1e-4)
    assert not fitted.new and len(fitted.unused) == 2


def test_learned_positions_do_not_become_fixed_ones():
    with pytest.raises(ValueError, match="learned its own.*encoder=timm"):
        fit(ViT(spec(), **SMALL), vit().state_dict(), "x")


def test_grey_images_get_the_sum_of_the_first_kernels():
    network = torchvision.models.resnet18()
    encoder = ResNet(spec(72, channels=1))
    fitted = fit(encoder, network.state_dict(), "x")
    assert "conv1.weight summed over its 3 channels" in fitted.line
    grey = images(72, channels=1)
    network.fc = nn.Identity()
    with torch.no_grad():
        wanted = network.eval()((grey.expand(-1, 3, -1, -1) - 0.5) / 0.25)
        torch.testing.assert_close(encoder.eval().embed({"image": grey}), wanted, rtol=1e-5, atol=1e-5)


def test_a_bert_with_its_oldest_names_gives_its_own_features():
    facts = TextSpec(length=16, vocab_size=64, pad_id=0, mask_id=1, eos_id=2, special_ids=(0, 1, 2), continues_word=())
    encoder, source = (TextTransformer(facts, size="tiny") for _ in range(2))
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {f"bert.{name}": tensor for name, tensor in source.transformer.state_dict().items()}
    for new, before in old.items():
        tensors = {name.replace(new, before): tensor for name, tensor in tensors.items()}
    fitted = fit(encoder, {**tensors, "cls.predictions.bias": torch.zeros(64)}, "pytorch_model.bin")
    batch = facts.example(4)
    torch.testing.assert_close(encoder.eval().embed(batch), source.eval().embed(batch))
    assert not fitted.new and list(fitted.unused) == ["cls.predictions.bias"]


def test_shapes_that_differ_are_named_and_stay_new():
    encoder = ResNet(spec(32))
    before = encoder.network.conv1.weight.clone()
    fitted = fit(encoder, torchvision.models.resnet18().state_dict(), "x.pth")
    assert "1 of another shape stay new: network.conv1.weight [64, 3, 3, 3], there [64, 3, 7, 7]" in fitted.line
    assert torch.equal(before, encoder.network.conv1.weight)
    assert "unused: fc.bias" in fitted.whole and "loaded network.bn1.weight" in fitted.whole


def test_a_file_of_which_less_than_half_fits_is_refused_with_the_names_side_by_side():
    encoder = ConvNet(spec())
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ValueError, match="gives 0 of the encoder's") as error:
        fit(encoder, torchvision.models.resnet18().state_dict(), "x.pth")
    lines = str(error.value).splitlines()
    assert lines[2].split()[0] == next(iter(before)) and "conv1.weight [64, 3, 7, 7]" in lines[2]
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_weights_that_are_not_finite_are_refused():
    tensors = {name: tensor.clone() for name, tensor in ConvNet(spec()).state_dict().items()}
    name = next(iter(tensors))
    tensors[name][0] = float("nan")
    with pytest.raises(ValueError, match=f"{name} in it is not finite"):
        fit(ConvNet(spec()), tensors, "x.pth")


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"model": Code()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds code or objects beside tensors, and nothing of it was run"):
        read_tensors(tmp_path / "x.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.pth", b"no archive", "Cannot read weights from"),
        ("x.safetensors", b"\xff" * 64, "damaged or no file of weights"),
        ("x.safetensors", b"", "damaged or no file of weights"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=found):
        read_tensors(tmp_path / name)


def test_files_without_tensors_and_missing_ones(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        read_tensors(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_tensors(tmp_path / "y.pth")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        read_tensors(tmp_path)


def test_statistics_of_other_images_and_of_grey_ones():
    encoder = ConvNet(spec(channels=1))
    encoder.normalise_by((0.2, 0.3, 0.4), (0.1, 0.2, 0.3))
    assert encoder.spec == replace(spec(channels=1), mean=(pytest.approx(0.3),), std=(pytest.approx(0.2),))
    with pytest.raises(ValueError, match="normalise_by=data"):
        ConvNet(spec(channels=4)).normalise_by((0.2, 0.3, 0.4), (0.1, 0.2, 0.3))


def test_names_of_published_weights(monkeypatch):
    with pytest.raises(ValueError, match="no such file, and torchvision has IMAGENET1K_V1"):
        ResNet(spec(72)).published("IMAGENET")
    with pytest.raises(ValueError, match="no published weights by name"):
        ConvNet(spec()).published("IMAGENET1K_V1")

    def offline(url, **_):
        assert url.endswith(".pth")
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(
        ValueError, match=r"Cannot download IMAGENET1K_V1 of ResNet-18 .*download.pytorch.org.*path of the file"
    ):
        ResNet(spec(72)).published("IMAGENET1K_V1")
