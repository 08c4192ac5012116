import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ssl_lab.data.image.digits import Digits

SPLITS = ("train", "val", "test")


def test_every_digit_lies_in_one_split():
    data = Digits()
    ours = torch.cat([data.columns(split)["image"] for split in SPLITS]).flatten(1).numpy()
    theirs = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert ours.shape == (1797, 64)
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    assert [len(data.columns(split)["label"]) for split in SPLITS] == [1213, 135, 449]


def test_splits_are_stratified_and_test_is_fixed():
    data, other = Digits(), Digits(val_fraction=0.3, split_seed=5)
    assert torch.equal(data.columns("test")["image"], other.columns("test")["image"])
    for split in SPLITS:
        share = data.columns(split)["label"].bincount() / len(data.columns(split)["label"])
        assert share.min() > 0.08 and share.max() < 0.12
    assert not torch.equal(Digits(split_seed=1).columns("val")["image"], data.columns("val")["image"])


def test_spec_describes_the_training_images():
    data = Digits()
    pixels = data.columns("train")["image"].double() / 255
    assert data.spec.shape == (1, 8, 8) and data.spec.num_classes == 10
    assert data.spec.class_names == tuple("0123456789")
    assert data.spec.mean == pytest.approx([pixels.mean().item()])
    assert data.spec.std == pytest.approx([pixels.std(correction=0).item()])


def test_loaders():
    data = Digits(batch_size=64, eval_batch_size=100)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (64, 1, 8, 8)
    assert torch.equal(batch["label"], data.columns("pretrain")["label"][batch["index"]])
    assert torch.equal(torch.cat([b["label"] for b in data.eval_dataloader("test")]), data.columns("test")["label"])


def test_errors():
    with pytest.raises(ValueError, match=r"no split 'dev'.*\['pretrain', 'test', 'train', 'val'\]"):
        Digits().columns("dev")
    with pytest.raises(ValueError, match="no split 'val'"):
        Digits(val_fraction=0).columns("val")
    with pytest.raises(ValueError, match="val_fraction"):
        Digits(val_fraction=1.0)
