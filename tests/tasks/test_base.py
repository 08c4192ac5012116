"""Layers, learning rates and freezing, whatever the task."""

import pytest
import torch
from tasks.tiny import LabelledText, encoder, fit, optim

from ssl_lab.tasks.text import trim
from ssl_lab.tasks.text_classification import TextClassification


def build(**settings):
    return TextClassification(encoder(LabelledText().spec), optim(), **settings)


def test_every_parameter_belongs_to_one_layer():
    text = encoder(LabelledText().spec)
    layers = text.layer_groups()
    assert len(layers.blocks) == 2
    groups = [layers.embeddings, *layers.blocks, layers.rest]
    numbers = [id(p) for group in groups for p in group]
    assert sorted(numbers) == sorted(id(p) for p in text.parameters())
    assert {id(p) for p in text.transformer.embeddings.parameters()} == {id(p) for p in layers.embeddings}
    assert {id(p) for p in text.transformer.encoder.layer[1].parameters()} == {id(p) for p in layers.blocks[1]}


def test_rates_decay_downwards_and_weight_decay_stays_right(tmp_path):
    method = build(layer_decay=0.5)
    rates, decays = {}, {}
    build_optimizer = method.configure_optimizers

    def configure():
        configured = build_optimizer()
        for group in configured["optimizer"].param_groups:
            for p in group["params"]:
                rates[p], decays[p] = group["initial_lr"], group["weight_decay"]
        return configured

    method.configure_optimizers = configure
    fit(method, LabelledText(), tmp_path, limit_train_batches=1)
    names = dict(method.named_parameters())
    assert set(rates) == set(names.values())
    for name, p in names.items():
        depth = 3 if name.startswith("head") else 0 if "embeddings" in name else 1 + int(name.split("layer.")[1][0])
        assert rates[p] == pytest.approx(2e-3 * 0.5 ** (3 - depth), rel=1e-12), name
        assert decays[p] == (0.1 if p.ndim >= 2 else 0.0), name


def test_one_rate_makes_two_groups_whose_first_is_the_heads(tmp_path):
    method = build()
    fit(method, LabelledText(), tmp_path, limit_train_batches=1)
    assert len(method.trainer.optimizers[0].param_groups) == 2
    method = build(layer_decay=0.5)
    fit(method, LabelledText(), tmp_path, limit_train_batches=1)
    groups = method.trainer.optimizers[0].param_groups
    assert groups[0]["initial_lr"] == 2e-3, "what the logs call the rate"
    assert len(groups) == 8


@pytest.mark.parametrize(
    ("freeze", "moving"),
    [("none", "ebbh"), ("embeddings", "bbh"), (1, "bh"), ("2", "h"), ("encoder", "h")],
)
def test_what_is_frozen_stays_to_the_last_bit(freeze, moving, tmp_path):
    method = build(freeze=freeze)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    fit(method, LabelledText(), tmp_path)
    changed = [name for name, value in method.state_dict().items() if not torch.equal(value, before[name])]
    parts = {"e": "embeddings", "h": "head"}
    found = "".join(
        letter
        for letter, part in [("e", parts["e"]), ("b", "layer.0"), ("b", "layer.1"), ("h", parts["h"])]
        if any(part in name for name in changed)
    )
    assert found == moving


@pytest.mark.parametrize("freeze", ["all", 0, 3, True, -1])
def test_unknown_parts_cannot_be_frozen(freeze):
    with pytest.raises(
        ValueError, match="Choose from none, embeddings, encoder, or the number of first blocks, 1 to 2"
    ):
        build(freeze=freeze)


@pytest.mark.parametrize(
    "settings",
    [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"dropout": 1.0}, {"layer_decay": 0.8, "freeze": "encoder"}],
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"method.{next(iter(settings))}="):
        build(**settings)


def test_trimming_leaves_every_token():
    ids = torch.tensor([[5, 6, 7, 0, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "label": torch.arange(2), "token_labels": ids}
    short = trim(batch, "token_labels", multiple=2)
    assert short["input_ids"].shape == short["token_labels"].shape == (2, 4)
    assert short["label"].shape == (2,)
    assert trim(batch)["input_ids"].shape == (2, 8)
    assert trim({**batch, "attention_mask": torch.ones_like(ids)})["input_ids"].shape == (2, 10)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_any_precision(precision, tmp_path):
    method = build()
    norms = []
    method.on_before_zero_grad = lambda optimizer: norms.append(
        torch.stack([p.grad.norm() for p in method.parameters() if p.grad is not None]).norm()
        if method.head[-1].weight.grad is not None
        else torch.tensor(0.0)
    )
    fit(method, LabelledText(), tmp_path, gradient_clip_val=1e-3, precision=precision, limit_train_batches=3)
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)
