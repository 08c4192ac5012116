"""Classes of whatever an encoder embeds: loss, mixtures, frozen and averaged weights, and the scores."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from arrays import ArrayImages
from tasks.tiny import LabelledText, encoder, fit, optim
from timm.layers.drop import DropPath

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.vit import ViT
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.pretext.mixing import Mixing
from ssl_lab.pretext.views import OneView, View
from ssl_lab.tasks.classification import Classification, ClassScores
from ssl_lab.types import Classes

CPU = torch.device("cpu")


def convnet(spec=None):
    torch.manual_seed(0)
    return ConvNet(spec or ArrayImages().spec, widths=(4, 8))


def build(**settings):
    return Classification(convnet(), optim(2e-2), **settings)


def test_learns_with_everything_on(tmp_path):
    crop = OneView(View(crop_scale=(0.8, 1.0), flip_prob=0.5, jitter_prob=0, grayscale_prob=0, blur_prob=0))
    settings = {"label_smoothing": 0.1, "mixup_alpha": 0.2, "cutmix_alpha": 0.2, "ema_decay": 0.5, "layer_decay": 0.9}
    method = build(augment=crop, **settings)
    data = ArrayImages()
    fit(method, data, tmp_path, epochs=4)
    found = evaluate(method.capabilities(), [ClassScores()], data, device=CPU)
    assert set(found) == {"finetune/accuracy", "finetune/recall", "finetune/macro_f1"}
    assert found["finetune/accuracy"] > 0.9


@pytest.mark.parametrize("mixtures", [{}, {"mixup_alpha": 1}, {"cutmix_alpha": 1}])
def test_the_loss_is_that_of_a_slow_loop(mixtures):
    method = build(label_smoothing=0.1, **mixtures).eval()
    batch = {"image": torch.rand(6, 1, 8, 8), "label": torch.tensor([0, 1, -1, 1, 0, -1])}
    shares = torch.tensor([[1.0, 0], [0, 1], [0, 0], [0, 1], [1, 0], [0, 0]])
    mixed = batch
    if mixtures:
        torch.manual_seed(3)
        mixed, shares = method.mixing(batch)
    total, count = 0.0, 0.0
    for row, image in zip(shares, mixed["image"], strict=True):
        p = method.logits({"image": image.unsqueeze(0)})[0].softmax(0)
        for k in range(2):
            total -= (0.9 * row[k] + 0.05 * row.sum()) * p[k].log()
        count += row.sum()
    torch.manual_seed(3)
    torch.testing.assert_close(method.training_step(batch, 0), total / count)


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_classes_have_the_shares_of_their_images(kind):
    """Images of one grey each: what is left of an image's own grey is the share of its class."""
    torch.manual_seed(1)
    levels = torch.tensor([0, 51, 102, 204], dtype=torch.uint8)
    batch = {"image": levels.view(4, 1, 1, 1).expand(4, 1, 8, 8), "label": torch.tensor([0, 1, 2, -1])}
    mixed, shares = Mixing(3, **{kind: 1.0})(batch)
    own = shares[1, 1]
    assert 0.01 < own < 0.99
    greys, before = levels / 255, levels.roll(1) / 255
    torch.testing.assert_close(mixed["image"].mean((1, 2, 3)), own * greys + (1 - own) * before)
    rest = 1 - own
    expected = torch.tensor([[own, 0, 0], [rest, own, 0], [0, rest, own], [0, 0, rest]])
    torch.testing.assert_close(shares, expected)


@pytest.mark.parametrize(("freeze", "kept"), [("encoder", "encoder."), (1, "encoder.stages.0.")])
def test_what_is_frozen_keeps_weights_and_batch_statistics(freeze, kept, tmp_path):
    method = build(freeze=freeze)
    before = deepcopy(method.state_dict())
    fit(method, ArrayImages(), tmp_path)
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(kept) for name in changed)
    assert any(name.startswith("head") for name in changed)
    assert (freeze == "encoder") != any("running_mean" in name for name in changed)


def test_averaged_weights_are_those_of_a_slow_loop_and_are_judged(tmp_path):
    method, seen = build(ema_decay=0.3), []
    names = [name for name in method.state_dict() if not name.startswith("average.")]
    expected = {name: method.state_dict()[name].clone() for name in names}
    follow = method.after_step

    def after_step():
        decay = min(0.3, (1 + len(seen)) / (10 + len(seen)))
        for name in names:
            value = method.state_dict()[name]
            expected[name] = (
                decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value.clone()
            )
        seen.append(decay)
        follow()

    method.after_step = after_step
    fit(method, ArrayImages(), tmp_path, epochs=2)
    assert len(seen) == 8 and seen[0] == 0.1 and seen[-1] == 0.3
    for name in names:
        torch.testing.assert_close(method.state_dict()[f"average.{name}"], expected[name], msg=name)
    batch = next(iter(ArrayImages().eval_dataloader("test")))
    judged = build()
    judged.load_state_dict(expected)
    offered = method.capabilities()
    torch.testing.assert_close(offered["class_logits"](batch), judged.eval().logits(batch))
    torch.testing.assert_close(offered["features"](batch), judged.encoder.embed(batch))


def test_blocks_are_left_out_more_often_the_later_they_are():
    images = ViT(ArrayImages().spec, patch_size=4, embed_dim=8, depth=3, num_heads=1)
    method = Classification(images, optim(), drop_path=0.4)
    found = [module.drop_prob for module in method.encoder.modules() if isinstance(module, DropPath)]
    assert found == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4]


def test_top_five_from_ten_classes_on():
    data = ArrayImages(num_samples=8)
    data.spec_of_ten = replace(data.spec, targets={"label": Classes(number=10)})

    class Ten(ArrayImages):
        spec = data.spec_of_ten

    scores = torch.rand(8, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    hits = [
        int(label in sorted(range(10), key=lambda k: -row[k])[:5]) for row, label in zip(scores, labels, strict=True)
    ]
    found = ClassScores().run(lambda batch: scores[batch["index"]], Ten(num_samples=8), device=CPU)
    assert found["finetune/top5"] == pytest.approx(sum(hits) / 8) and 0 < sum(hits) < 8
    scores[3, 2] = torch.nan
    with pytest.raises(ValueError, match="Scores of 1 of 8 test samples are not finite"):
        ClassScores().run(lambda batch: scores[batch["index"]], Ten(num_samples=8), device=CPU)


def test_text_is_classified_by_its_features_but_not_mixed():
    method = Classification(encoder(LabelledText().spec), optim()).eval()
    batch = next(iter(LabelledText().eval_dataloader("test")))
    torch.testing.assert_close(method.logits(batch), method.head(method.encoder.embed(batch)))
    for settings in ({"mixup_alpha": 1.0}, {"augment": OneView(torch.nn.Identity())}):
        with pytest.raises(ValueError, match="changes the column 'image', but TextTransformer reads text"):
            Classification(encoder(LabelledText().spec), optim(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, "method.label_smoothing="),
        ({"cutmix_alpha": -1.0}, "method.cutmix_alpha="),
        ({"ema_decay": 1.0}, "method.ema_decay="),
        ({"drop_path": 0.1, "freeze": "encoder"}, r"method\.drop_path=0.1 has no effect with method\.freeze=encoder"),
        ({"drop_path": 0.1}, "the blocks of ConvNet always take all of their branches"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
    with pytest.raises(ValueError, match="needs data with classes, but this data has none"):
        Classification(convnet(replace(ArrayImages().spec, targets={})), optim())
