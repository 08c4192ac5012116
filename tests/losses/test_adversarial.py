import math

import pytest
import torch
import torch.nn.functional as F

from ssl_lab.losses.adversarial import hinge, non_saturating

REAL, FAKE = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-3.0, 0.2, 1.5])


def test_non_saturating_is_binary_cross_entropy():
    loss = non_saturating()
    bce = F.binary_cross_entropy_with_logits
    expected = bce(REAL, torch.ones(3)) + bce(FAKE, torch.zeros(3))
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), expected)
    torch.testing.assert_close(loss.generator(FAKE), bce(FAKE, torch.ones(3)))


def test_an_undecided_discriminator_pays_two_log_two():
    assert non_saturating().discriminator(torch.zeros(4), torch.zeros(4)).item() == pytest.approx(2 * math.log(2))


def test_hinge_by_hand():
    loss = hinge()
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx((0 + 2 + 0.5) / 3 + (0 + 1.2 + 2.5) / 3)
    assert loss.generator(FAKE).item() == pytest.approx(-(-3 + 0.2 + 1.5) / 3)


@pytest.mark.parametrize("make", [non_saturating, hinge])
def test_extreme_logits_stay_finite(make):
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(make().discriminator(huge, -huge))
    assert torch.isfinite(make().generator(huge))
