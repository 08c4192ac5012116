"""What every method in conf/method must satisfy, found by its YAML file alone."""

import inspect
from pathlib import Path

import pytest
import torch
from arrays import ArrayCaptions, ArrayImages, ArrayText, ArrayTextPairs
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from ssl_lab.cli.build import build_method
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.trust.targets import trusting
from ssl_lab.methods.base import Method
from ssl_lab.testing import check_features, check_labels, check_state, check_training, train

METHODS = sorted(path.stem for path in (config_dir() / "method").glob("*.yaml"))
DATA = {"image": ArrayImages, "text": ArrayTextPairs, "image_text": ArrayCaptions}
ENCODERS = {
    "image": ["encoder=convnet", "encoder.widths=[8,16]"],
    "text": ["encoder=bert_tiny"],
    "image_text": [
        "encoder=dual",
        "encoder@encoder.image=convnet",
        "encoder@encoder.text=bert_tiny",
        "encoder.image.widths=[8,16]",
    ],
}

OWN_ENCODERS = {
    "causal_lm": ["encoder=gpt2_mini", "encoder.size=tiny"],
    "image_gpt": ["encoder=code_gpt_mini", "encoder.codes={_target_:arrays.tiny_vq_vae}", "encoder.embed_dim=16"],
    "mae": ["encoder=vit_mae_mini", "encoder.patch_size=2", "encoder.embed_dim=16", "encoder.depth=2"],
    "span_denoising": ["encoder=t5_mini", "encoder.size=tiny"],
}


def composed(method):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pretrain", [f"method={method}"])
        modality = (get_class(cfg.method._target_).takes or get_class(cfg.method.views._target_).takes).modality
        return compose("pretrain", [f"method={method}", *OWN_ENCODERS.get(method, ENCODERS[modality])]), modality


def build(method):
    cfg, modality = composed(method)
    data = DATA[modality]()
    torch.manual_seed(0)
    with trusting(OWN_ENCODERS.get(method, [])):
        return build_method(cfg, data.spec), data


@pytest.mark.parametrize("check", [check_training, check_features, check_labels, check_state])
@pytest.mark.parametrize("name", METHODS)
def test_contract(name, check):
    check(lambda: build(name)[0], build(name)[1])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_views_offers_their_features(name):
    method, data = build(name)
    takes_views = "views" in inspect.signature(type(method)).parameters
    assert ("view_features" in method.capabilities()) == takes_views
    if takes_views:
        batch = next(iter(data.eval_dataloader("val")))
        features = method.capabilities()["view_features"](batch, 3)
        assert features.shape == (3, *method.features(batch).shape)
        assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("name", METHODS)
def test_each_picture_has_a_caption(name):
    method, data = build(name)
    pictures = method.pictures(next(iter(data.eval_dataloader("val"))))
    assert all(picture.caption is not None for picture in pictures.values()), pictures.keys()


@pytest.mark.parametrize("name", METHODS)
def test_accumulation_works_or_is_refused_with_the_reason(name):
    method, data = build(name)
    if method.coupled_by or not method.automatic_optimization:
        with pytest.raises(Exception, match="accumulat"):
            train(method, data, accumulate_grad_batches=2)
    else:
        train(method, data, accumulate_grad_batches=2)
        assert method.trainer.global_step == 2


@pytest.mark.parametrize("name", METHODS)
def test_pictures_and_samples(name):
    method, data = build(name)
    train(method, data, num_steps=1)
    assert method.pictures(next(iter(data.eval_dataloader("val"))))
    capabilities = method.capabilities()
    if "sample" in capabilities:
        draw = [capabilities["sample"](5, torch.Generator().manual_seed(0)) for _ in range(2)]
        assert torch.equal(*draw)
        assert draw[0].shape == (5, *data.spec.shape)
        assert 0 <= draw[0].min() and draw[0].max() <= 1


@pytest.mark.parametrize("name", METHODS)
def test_wrong_modality_is_refused_in_words(name):
    cfg, modality = composed(name)
    other, cfg.encoder = {
        "image": (ArrayText(), {"_target_": "ssl_lab.encoders.text_transformer.TextTransformer", "size": "tiny"}),
        "text": (ArrayImages(), {"_target_": "ssl_lab.encoders.convnet.ConvNet", "widths": [8]}),
        "image_text": (ArrayImages(), {"_target_": "ssl_lab.encoders.convnet.ConvNet", "widths": [8]}),
    }[modality]
    with pytest.raises(Exception, match="Choose data=.* of one modality"):
        build_method(cfg, other.spec)


def yaml_files():
    groups = ("method", "task", "encoder", "generator", "optim", "views", "masking", "data")
    return [path for group in groups for path in sorted((config_dir() / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_yaml_values_are_arguments_and_the_methods_values_its_defaults(path):
    node = OmegaConf.load(path)
    if path.parent.name == "task":
        node = node.method
    target = get_class(node._target_)
    parameters = inspect.signature(target).parameters
    mounted = {next(iter(entry)).split("@")[1] for entry in node.get("defaults", [])}
    for key, value in OmegaConf.to_container(node).items():
        if key in ("_target_", "_partial_", "defaults"):
            continue
        assert key in parameters, f"{target.__name__} takes no {key}"
        if path.parent.name in ("method", "task", "masking") and not isinstance(value, dict):
            assert value == parameters[key].default, key
    if issubclass(target, Method):
        required = {k for k, p in parameters.items() if p.default is inspect.Parameter.empty} - {"encoder", "optim"}
        assert required <= mounted | set(node), required


def test_every_file_in_conf_begins_with_one_line_for_the_list():
    for path in Path(config_dir()).glob("*/*.yaml"):
        assert path.read_text().startswith("#"), path
