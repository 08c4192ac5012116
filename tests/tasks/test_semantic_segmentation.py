"""Masks of pixels: loss, scores and training."""

import math
from dataclasses import replace

import pytest
import torch
from arrays import ArrayImages
from sklearn.metrics import jaccard_score
from tasks.tiny import fit, optim

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.pretext.joint_crop import JointCrop
from ssl_lab.tasks.semantic_segmentation import MaskScores, SemanticSegmentation, confusion
from ssl_lab.types import Classes, NotOfferedError

CPU = torch.device("cpu")


class Masked(ArrayImages):
    """The bright half of each image is of class 1, a column is ignored."""

    names = ("up", "down")

    @property
    def spec(self):
        return replace(super().spec, targets={"mask": Classes(names=self.names)})

    def columns(self, split):
        columns = super().columns(split)
        mask = (columns["image"][:, 0] > 110).byte()
        mask[:, :, 0] = 255
        return {"image": columns["image"], "mask": mask}


def build(spec=None, **settings):
    torch.manual_seed(0)
    return SemanticSegmentation(ConvNet(spec or Masked().spec, widths=(8, 8)), optim(2e-2), **settings)


@pytest.mark.parametrize("head", ["linear", "fcn"])
def test_learns(tmp_path, head):
    data = Masked()
    width = {"head_dim": 8} if head == "fcn" else {}
    method = build(head=head, **width, augment=JointCrop(crop_scale=(0.6, 1.0)), layer_decay=0.9)
    losses = fit(method, data, tmp_path, epochs=6)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    found = evaluate(method.capabilities(), [MaskScores()], data, device=CPU)
    assert set(found) == {"finetune/miou", "finetune/pixel_accuracy", "class_iou/up", "class_iou/down"}
    assert found["finetune/miou"] > 0.7
    data.eval_batch_size = 7
    assert evaluate(method.capabilities(), [MaskScores()], data, device=CPU) == found
    picture = method.pictures(next(iter(data.eval_dataloader("val"))))["masks"]
    assert picture.images.shape == (3, 6, 3, 8, 8) and picture.images[1, :, :, :, 0].max() == 0
    assert list(picture.legend) == ["up", "down", "not counted"] and picture.legend["not counted"] == [0, 0, 0]
    images = next(iter(data.eval_dataloader("val")))["image"]
    assert torch.equal(picture.images[0, -1, 0], images[-1, 0] / 255)
    assert picture.caption.title == "Masks" and "class of each pixel" in picture.caption.explanation


def test_the_loss_is_that_of_a_slow_loop_over_pixels_that_count():
    method = build(spec=Masked(shape=(1, 8, 12)).spec).eval()
    batch = {"image": torch.rand(3, 1, 8, 12), "mask": torch.randint(0, 2, (3, 8, 12), dtype=torch.uint8)}
    batch["mask"][0] = 255
    batch["mask"][1, 2:5] = 255
    p = method.logits(batch).log_softmax(1)
    terms = [
        -p[b, int(batch["mask"][b, y, x]), y, x]
        for b in range(3)
        for y in range(8)
        for x in range(12)
        if batch["mask"][b, y, x] != 255
    ]
    torch.testing.assert_close(method.training_step(batch, 0), torch.stack(terms).mean())
    batch["mask"][:] = 255
    assert float(method.training_step(batch, 0).detach()) == 0


def test_scores_are_those_of_a_slow_loop_and_of_scikit_learn():
    torch.manual_seed(0)
    truth, found = torch.randint(0, 3, (2, 5, 6, 7), dtype=torch.uint8)
    truth[truth == 2] = 255  # class 2 is found, but nowhere true
    counts = torch.zeros(4, 5, dtype=torch.int64)
    for t, f in zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True):
        if t != 255:
            counts[t, f] += 1
    assert torch.equal(confusion(found, truth, 4), counts)

    class Data(Masked):
        names = ("a", "b", "c", "d")

        def columns(self, split):
            return {"image": torch.zeros(5, 1, 6, 7), "mask": truth}

    scores = MaskScores().run(lambda batch: found[batch["index"]], Data(eval_batch_size=2), device=CPU)
    known = truth != 255
    y, z = truth[known].numpy(), found[known].numpy()
    each = jaccard_score(y, z, labels=[0, 1], average=None)
    assert scores == {
        "finetune/miou": pytest.approx(each.mean()),
        "finetune/pixel_accuracy": pytest.approx((y == z).mean()),
        "class_iou/a": pytest.approx(each[0]),
        "class_iou/b": pytest.approx(each[1]),
    }
    truth[:] = 255
    with pytest.raises(ValueError, match="none of its pixels counts"):
        MaskScores().run(lambda batch: found[batch["index"]], Data(), device=CPU)


def test_masks_of_one_class_and_scores_that_are_not_finite_are_no_score():
    class One(Masked):
        def columns(self, split):
            columns = super().columns(split)
            return {**columns, "mask": columns["mask"].clamp(min=1)}

    with pytest.warns(UserWarning, match="All pixels of the test split are of the class down"):
        assert all(map(math.isnan, MaskScores().run(lambda b: b["mask"], One(), device=CPU).values()))
    method = build()
    with torch.no_grad():
        method.head[-1][-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"Scores of ([0-9]+) of \1 test pixels are not finite"):
        evaluate(method.capabilities(), [MaskScores()], Masked(), device=CPU)


def test_encoders_without_maps_data_without_masks_and_senseless_heads_are_refused():
    with pytest.raises(NotOfferedError, match="Cannot take feature maps of a MLPEncoder"):
        SemanticSegmentation(MLPEncoder(Masked().spec), optim())
    with pytest.raises(ValueError, match="needs data with classes, but .*Choose data=mask_folder"):
        build(spec=ArrayImages().spec)
    with pytest.raises(ValueError, match="Choose linear or fcn"):
        build(head="upernet")


def test_a_width_that_the_linear_head_does_not_have_is_refused():
    with pytest.raises(ValueError, match="method.head_dim=8 has no effect with method.head=linear"):
        build(head="linear", head_dim=8)
