"""Losses that compare views by their soft assignments to prototypes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def sinkhorn_knopp(scores: Tensor, *, epsilon: float, num_iterations: int) -> Tensor:
    r"""Soft assignments to prototypes that use all prototypes equally often: the codes of SwAV.

    .. math:: Q = \mathrm{diag}(u) \exp(S / \epsilon)\, \mathrm{diag}(v)

    Each iteration scales the columns to equal sums and then the rows to sums of one. This happens to logarithms, which
    gives the paper's codes without its overflow where :math:`\epsilon` is small; in fp32 whatever the autocast precision.

    Args:
        scores: Similarities S of samples and prototypes, shape (B, K); the joined batch of all ranks.
        epsilon: Entropy regularisation, > 0: the larger, the softer (paper: 0.05).
        num_iterations: How often columns and rows are scaled, at least once (paper: 3).

    Returns:
        Codes, shape (B, K), not negative; rows sum to one. Without gradient.

    Raises:
        ValueError: If the regularisation is not positive, there is no iteration, or fewer than two samples or prototypes.

    References:
        Cuturi, Sinkhorn Distances (2013). arXiv:1306.0895
        Caron et al., SwAV (2020), eq. 3 to 5. arXiv:2006.09882
    """
    if not 0 < epsilon < math.inf or num_iterations < 1:
        raise ValueError(
            f"Sinkhorn-Knopp needs epsilon > 0 and an iteration or more, found {epsilon} and {num_iterations}."
        )
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ValueError(
            f"Sinkhorn-Knopp balances two samples or more over two prototypes or more, found scores {tuple(scores.shape)}: "
            "all codes would be the same whatever the scores. Raise data.batch_size or method.num_prototypes."
        )
    with torch.autocast(scores.device.type, enabled=False):
        log_q = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
        for _ in range(num_iterations):
            log_q = log_q.log_softmax(0)
            log_q = log_q.log_softmax(1)
        return log_q.exp()


def swapped_prediction(targets: Tensor, logits: Tensor, *, temperature: float) -> Tensor:
    r"""Cross entropy between the assignments of each global view and the predictions of all other views.

    .. math:: -\frac{1}{2 (V - 1)} \sum_{g=1}^{2} \sum_{v \ne g} \sum_k q^g_k \log p^v_k

    averaged over the batch, where :math:`p = \mathrm{softmax}(s / \tau)`. SwAV and DINO differ in where the assignments q
    come from. Computed in fp32 whatever the autocast precision.

    Args:
        targets: Assignments q of the two global views, shape (2, B, K), rows sum to one; usually without gradient.
        logits: Scores s of all views, the two global ones first, shape (V, B, K) with V >= 2.
        temperature: Softmax temperature of the predictions, > 0 (paper: 0.1).

    Returns:
        Scalar, mean over pairs of views and samples, in nats.

    Raises:
        ValueError: If shapes do not fit, there is one prototype, or the temperature is not positive.

    References:
        Caron et al., SwAV (2020), eq. 2 and 6. arXiv:2006.09882
        Caron et al., DINO (2021), eq. 3. arXiv:2104.14294
    """
    if targets.ndim != 3 or len(targets) != 2 or len(logits) < 2 or logits.shape[1:] != targets.shape[1:]:
        raise ValueError(
            f"Swapped prediction needs targets (2, B, K) and logits (V, B, K) with V >= 2, found {tuple(targets.shape)} "
            f"and {tuple(logits.shape)}."
        )
    if targets.shape[2] < 2:
        raise ValueError("One prototype is always predicted right. Set method.num_prototypes to 2 or more.")
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, found {temperature}.")
    num_views, batch_size, _ = logits.shape
    with torch.autocast(logits.device.type, enabled=False):
        log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=2)
        swapped = targets.flip(0) * log_p[:2]  # each global view predicts the other one,
        both = targets.sum(0) * log_p[2:].sum(0)  # each local view both
        return -(swapped.sum() + both.sum()) / (2 * (num_views - 1) * batch_size)
