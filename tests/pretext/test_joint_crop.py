import pytest
import torch

from ssl_lab.pretext.joint_crop import JointCrop


def ramps():
    """Images whose brightness at a place says the place, and masks that hold the same number."""
    x = torch.arange(40).expand(6, 30, 40)
    y = torch.arange(30).unsqueeze(1).expand(6, 30, 40)
    return [(ramp.unsqueeze(1).float() / 255, ramp.to(torch.uint8)) for ramp in (x, y)]


@pytest.mark.parametrize("size", [None, (16, 20)])
def test_mask_and_image_are_taken_from_the_same_places(size):
    torch.manual_seed(0)
    for image, mask in ramps():
        found = JointCrop(size=size)({"image": image, "mask": mask, "index": torch.arange(6)})
        assert found["image"].shape == (6, 1, *(size or (30, 40))) and found["mask"].dtype == torch.uint8
        assert (255 * found["image"][:, 0] - found["mask"]).abs().max() <= 0.5 + 1e-3
        assert not torch.equal(found["mask"], mask)


def test_flips_are_exact_and_half_of_all():
    torch.manual_seed(0)
    image = torch.randint(0, 5, (200, 1, 4, 6), dtype=torch.uint8)
    crop = JointCrop(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    found = crop({"image": image, "mask": image[:, 0]})
    assert torch.equal((255 * found["image"][:, 0]).round().byte(), found["mask"])
    flipped = (found["mask"] == image[:, 0].flip(2)).flatten(1).all(1)
    straight = (found["mask"] == image[:, 0]).flatten(1).all(1)
    assert (flipped | straight).all() and 70 < int(flipped.sum()) < 130


def test_crops_keep_the_share_and_never_leave_the_image():
    torch.manual_seed(1)
    x = torch.arange(256).clamp(max=254).to(torch.uint8).expand(64, 64, 256)
    found = JointCrop(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0), flip_prob=0)({"image": x.unsqueeze(1), "mask": x})
    width = found["mask"].long().amax((1, 2)) - found["mask"].long().amin((1, 2))
    assert (width - 128).abs().max() <= 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"crop_scale": (0.0, 1.0)}, "crop_scale"), ({"flip_prob": 2.0}, "flip_prob"), ({"size": (0, 4)}, "a size of")],
)
def test_senseless_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=f"JointCrop needs {said}"):
        JointCrop(**settings)
