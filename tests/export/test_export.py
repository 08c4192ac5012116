"""Every family of encoders in every format: loaded back by the other library it gives equal features, or is refused."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from ssl_lab.cli import build as config
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.export.graph import Features, export_program, features_of, write_graph
from ssl_lab.export.timm import write_for_timm
from ssl_lab.export.transformers import (
    check_features,
    transformers_model,
    write_for_transformers,
    write_processor,
)
from ssl_lab.methods.base import Method
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import AdamW

SMALL = ImageSpec(shape=(3, 16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
LARGE = ImageSpec(shape=(1, 72, 80), mean=(0.4,), std=(0.2,))
TEXT = TextSpec(length=24, vocab_size=90, pad_id=0, mask_id=4, eos_id=3, special_ids=(0, 1, 2, 3, 4))
PAIRS = PairSpec(image=SMALL, text=TEXT)

GRAPH, TIMM, HF = "graph", "timm", "hf"
FAMILIES = {  # data, settings, formats other than one graph
    "mlp": (SMALL, ["encoder.hidden_dims=[16]"], ()),
    "convnet": (SMALL, ["encoder.widths=[8,16]"], ()),
    "dcgan": (SMALL, ["encoder.width=8"], ()),
    "sngan": (SMALL, ["encoder.widths=[8,8]"], ()),
    "resnet18": (SMALL, [], ()),
    "timm": (LARGE, ["encoder.name=resnet10t", "encoder.options.stem_width=8"], (TIMM,)),
    "vit_tiny": (SMALL, ["encoder.options.depth=2", "encoder.options.embed_dim=24"], (TIMM,)),
    "vit_mae_mini": (SMALL, ["encoder.depth=2", "encoder.embed_dim=32", "encoder.num_heads=2"], (TIMM, HF)),
    "bert_tiny": (TEXT, [], (HF,)),
    "roberta_mini": (TEXT, ["encoder.size=tiny", "encoder.pooling=first"], (HF,)),
    "modernbert_mini": (TEXT, ["encoder.size=tiny"], (HF,)),
    "gpt2_mini": (TEXT, ["encoder.size=tiny", "encoder.pooling=last"], (HF,)),
    "t5_mini": (TEXT, ["encoder.size=tiny"], (HF,)),
    "dual": (PAIRS, ["encoder@encoder.image=convnet", "encoder@encoder.text=bert_tiny"], ()),
}
OTHER_SIZES = {
    "bert_base", "bert_mini", "bert_small", "roberta_base", "modernbert_base", "gpt2_base", "t5_base", "resnet34",
    "resnet50", "vit_mae_base", "vit_mae_tiny", "gpt2_nano", "t5_tiny",
}  # fmt: skip


class Plain(Method):
    """A method that has nothing but its encoder."""

    def __init__(self, encoder):
        super().__init__(encoder, AdamW(lr=1e-3))

    def training_step(self, batch, batch_idx):
        raise NotImplementedError


def new_encoder(name, spec, settings=()):
    """An encoder of a configuration whose normalisations and biases are not those of the start."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(
            "pretrain",
            [f"encoder={name}", *(f"++{setting}" if "@" not in setting else setting for setting in settings)],
        )
    torch.manual_seed(0)
    encoder = config.build_encoder(cfg.encoder, spec)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for layer in encoder.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return encoder


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


def test_every_encoder_is_of_a_family_that_is_tried():
    assert {*FAMILIES, *OTHER_SIZES, "code_gpt_mini"} == set(choices("encoder"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_exported_with_equal_features_or_refused(name, programs, tmp_path):
    spec, settings, formats = FAMILIES[name]
    method = Plain(new_encoder(name, spec, settings)).eval()
    encoder = method.encoder
    batch = spec.example(4)
    with torch.no_grad():
        wanted = encoder.embed(batch).clone()

    if TIMM in formats:
        write_for_timm(encoder, tmp_path)
        loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        facts = timm.data.resolve_model_data_config(loaded)
        assert facts["input_size"] == spec.shape
        mean, std = (torch.tensor(facts[key]).view(-1, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            torch.testing.assert_close(loaded((batch["image"] - mean) / std), wanted, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="format=onnx"):
            write_for_timm(encoder, tmp_path)
    if name == "vit_mae_mini":
        write_for_transformers(transformers_model(method), tmp_path)
        write_processor(encoder, tmp_path)  # loads it back
    elif HF not in formats:  # those of text: tests/cli/commands/test_sample.py
        with pytest.raises(ValueError, match="transformers has no class for .* Export it with format=onnx"):
            transformers_model(method)

    features = features_of(method)
    program = export_program(features, spec)
    for kind in ("torch_export", "onnx"):
        write_graph(program, features, spec, tmp_path, kind=kind)
    assert not list(tmp_path.glob("*.data"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {key: column.numpy() for key, column in batch.items()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)
    if spec is TEXT:  # of another length, and without padding
        short = {"input_ids": batch["input_ids"][:1, :7], "attention_mask": torch.ones(1, 7, dtype=torch.int64)}
        (found,) = session.run(None, {key: column.numpy() for key, column in short.items()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), encoder.embed(short), rtol=1e-4, atol=1e-4)
    (programs / name).mkdir()
    (tmp_path / "model.pt2").rename(programs / name / "model.pt2")
    np.savez(
        programs / name / "batch.npz", wanted=wanted.numpy(), **{key: column.numpy() for key, column in batch.items()}
    )


def test_programs_run_where_there_is_no_ssl_lab(programs):
    """All that the test before has written, in one process in which ssl_lab cannot be imported."""
    code = f"""
import sys
sys.modules["ssl_lab"] = None
import pathlib, numpy, torch
for folder in sorted(pathlib.Path({str(programs)!r}).iterdir()):
    with numpy.load(folder / "batch.npz") as file:
        columns = {{name: torch.from_numpy(file[name]) for name in file.files}}
    wanted = columns.pop("wanted")
    found = torch.export.load(folder / "model.pt2").module()(*columns.values())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    print(folder.name)
try:
    import ssl_lab
except ImportError:
    print("no ssl_lab")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:-1] == [*sorted(path.name for path in programs.iterdir()), "no ssl_lab"]
    assert (programs / "convnet").is_dir()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_of_large_images_are_timms(tmp_path, name):
    encoder = new_encoder(name, LARGE)
    write_for_timm(encoder, tmp_path)  # loads it back and compares
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).num_features == encoder.embed_dim


def test_an_export_for_timm_is_an_encoder_again(tmp_path):
    spec, settings, _ = FAMILIES["vit_mae_mini"]
    first = new_encoder("vit_mae_mini", spec, settings)
    write_for_timm(first, tmp_path)
    again = new_encoder("timm", spec, [f"encoder.name=local-dir:{tmp_path}", "encoder.pretrained=true"])
    (tmp_path / "second").mkdir()
    write_for_timm(again, tmp_path / "second")


def test_features_that_differ_are_refused():
    encoder = ConvNet(SMALL, widths=(4, 8)).eval()
    with pytest.raises(ValueError, match="on random inputs they differ"):
        check_features(lambda: lambda batch: encoder.embed(batch) + 1e-3, encoder.embed, SMALL)


def test_a_network_that_looks_at_its_values_is_refused():
    class Looks(nn.Module):
        def forward(self, batch):
            return batch["image"] if batch["image"].sum() > 0 else -batch["image"]

    looks = Looks()
    with pytest.raises(ValueError, match="The Looks could not be written as one graph"):
        export_program(Features(looks, looks, ("image",)), SMALL)
