import pytest
import torch

from ssl_lab.pretext.patch_masking import PatchMasking

CPU = torch.device("cpu")


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 12), (0.5, 24), (0.9, 4), (0.02, 48)])
def test_each_image_keeps_the_share_rounded_down(ratio, kept):
    ids_keep, ids_masked = PatchMasking(ratio)(7, 49, CPU)
    assert ids_keep.shape == (7, kept)
    assert ids_masked.shape == (7, 49 - kept)
    assert PatchMasking(ratio).num_kept(49) == int(49 * (1 - ratio)) == kept


def test_kept_and_removed_are_a_permutation_that_its_argsort_undoes():
    order = torch.cat(PatchMasking(0.75)(5, 49, CPU), 1)
    assert torch.equal(order.sort(1).values, torch.arange(49).expand(5, -1))
    x = torch.randn(5, 49)
    assert torch.equal(x.gather(1, order).gather(1, order.argsort(1)), x)


def test_each_image_has_a_mask_of_its_own_and_a_seed_repeats_it():
    masking = PatchMasking(0.75)
    first, second, other = (masking(6, 49, CPU, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len(first.sort(1).values.unique(dim=0)) == 6


def test_every_patch_is_removed_equally_often():
    num_images = 8000
    _, ids_masked = PatchMasking(0.75)(num_images, 16, CPU, torch.Generator().manual_seed(0))
    share = ids_masked.flatten().bincount(minlength=16) / num_images
    assert (share - 0.75).abs().max() < 5 * (0.75 * 0.25 / num_images) ** 0.5


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 75])
def test_refuses_a_share_that_is_none(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio, lies between 0 and 1, found {ratio}"):
        PatchMasking(ratio)
