import torch

from ssl_lab.losses.tokens import IGNORED, token_cross_entropies, token_cross_entropy_sum


def test_equals_the_sum_of_negative_log_probabilities():
    logits = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(7)
    each = torch.stack([-torch.log(logits[i].exp()[i] / logits[i].exp().sum()) for i in range(7)])
    torch.testing.assert_close(token_cross_entropies(logits, targets), each)
    torch.testing.assert_close(token_cross_entropy_sum(logits, targets), each.sum())


def test_ignored_tokens_cost_nothing():
    logits, labels = torch.randn(2, 3, 11, requires_grad=True), torch.tensor([[1, IGNORED, 4], [IGNORED, 0, 10]])
    losses = token_cross_entropies(logits, labels)
    assert losses.shape == (2, 3)
    assert ((losses == 0) == (labels == IGNORED)).all()
    torch.testing.assert_close(token_cross_entropy_sum(logits, labels), losses.sum())
    losses.sum().backward()
    assert (logits.grad[labels == IGNORED] == 0).all()


def test_nothing_masked_costs_nothing_and_has_a_zero_gradient():
    hidden = torch.randn(0, 5, requires_grad=True)
    loss = token_cross_entropy_sum(hidden, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None


def test_the_gradient_is_that_of_the_definition():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, IGNORED, 5, 2])
    assert torch.autograd.gradcheck(lambda x: token_cross_entropy_sum(x, labels), logits)


def test_extreme_logits_in_bf16_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16)
    assert torch.isfinite(token_cross_entropy_sum(logits, torch.tensor([1])))
