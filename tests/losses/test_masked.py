import torch

from ssl_lab.losses.masked import masked_cross_entropy_sum


def test_equals_the_sum_of_negative_log_probabilities():
    logits = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(7)
    expected = -sum(torch.log(logits[i].exp()[i] / logits[i].exp().sum()) for i in range(7))
    torch.testing.assert_close(masked_cross_entropy_sum(logits, targets), expected)


def test_nothing_masked_costs_nothing_and_has_a_zero_gradient():
    hidden = torch.randn(0, 5, requires_grad=True)
    loss = masked_cross_entropy_sum(hidden, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None


def test_extreme_logits_in_bf16_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16)
    assert torch.isfinite(masked_cross_entropy_sum(logits, torch.tensor([1])))
