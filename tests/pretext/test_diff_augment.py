import pytest
import torch

from ssl_lab.pretext.diff_augment import DiffAugment, change_colour, cut_out, translate


def images(batch=6, shape=(3, 8, 10), dtype=torch.float64):
    return torch.rand(batch, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def seeded(augment, x, seed=0):
    return augment(x, torch.Generator().manual_seed(seed))


def test_colour_by_hand():
    x, factors = images(2), torch.tensor([0.3, 1.7], dtype=torch.float64)
    found = change_colour(x, 0.1 * factors.view(-1, 1, 1, 1), factors.view(-1, 1, 1, 1), 2 - factors.view(-1, 1, 1, 1))
    for image, out, factor in zip(x, found, factors, strict=True):
        expected = image + 0.1 * factor
        grey = expected.mean(0)
        expected = torch.stack([grey + factor * (channel - grey) for channel in expected])
        expected = expected.mean() + (2 - factor) * (expected - expected.mean())
        torch.testing.assert_close(out, expected)


def test_translation_pixel_by_pixel():
    x = images(5)
    down, right = torch.tensor([[0], [2], [-3], [7], [-8]]), torch.tensor([[0], [-4], [1], [9], [3]])
    found = translate(x, down, right)
    for number in range(5):
        for i in range(8):
            for j in range(10):
                i_from, j_from = i - int(down[number]), j - int(right[number])
                inside = 0 <= i_from < 8 and 0 <= j_from < 10
                expected = x[number, :, i_from, j_from] if inside else torch.zeros(3, dtype=torch.float64)
                assert torch.equal(found[number, :, i, j], expected)


def test_cutout_pixel_by_pixel():
    x = images(3)
    found = cut_out(x, torch.tensor([[2], [-1], [6]]), torch.tensor([[3], [8], [-2]]), (4, 5))
    for number, (top, left) in enumerate([(2, 3), (-1, 8), (6, -2)]):
        for i in range(8):
            for j in range(10):
                inside = top <= i < top + 4 and left <= j < left + 5
                expected = torch.zeros(3, dtype=torch.float64) if inside else x[number, :, i, j]
                assert torch.equal(found[number, :, i, j], expected)


def test_gradients_pass():
    augment = DiffAugment()
    x = images(3, (2, 4, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: seeded(augment, x), x)


def test_every_image_gets_its_own_draw_and_the_same_seed_the_same():
    x = images(1, dtype=torch.float32).expand(32, -1, -1, -1)
    augmented = seeded(DiffAugment(), x)
    assert augmented.dtype == torch.float32
    assert augmented.shape == x.shape
    assert len(torch.unique(augmented.flatten(1), dim=0)) == 32
    assert torch.equal(augmented, seeded(DiffAugment(), x))
    assert not torch.equal(augmented, seeded(DiffAugment(), x, seed=1))


def test_shares_of_moved_and_greyed_pixels():
    x = torch.ones(4000, 1, 16, 16)
    moved = seeded(DiffAugment(colour=False, cutout=0), x)
    # Shifts by 0, 1 or 2 pixels of 16, the last two either way: 1.2 on average, along both axes.
    assert (moved == 0.5).float().mean() == pytest.approx(1 - (1 - 1.2 / 16) ** 2, abs=0.005)
    cut = seeded(DiffAugment(colour=False, translation=0), x)
    # Centres fall on 17 places along each axis; those next to an edge lose 4, 3, 2, 1 of 8 pixels.
    side = (17 * 8 - 2 * (4 + 3 + 2 + 1)) / 17
    assert (cut == 0.5).float().mean() == pytest.approx((side / 16) ** 2, abs=0.005)


def test_without_its_parts_it_changes_nothing():
    x = images()
    torch.testing.assert_close(DiffAugment(colour=False, translation=0, cutout=0)(x), x)


def test_refuses_shares_beyond_the_image():
    with pytest.raises(ValueError, match="cutout=1.5"):
        DiffAugment(cutout=1.5)
