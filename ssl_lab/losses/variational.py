"""Terms of the evidence lower bound, in nats per image."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.devices import wide


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """Negative log likelihood of pixels in [0, 1] under independent Bernoulli variables.

    A grey value is read as the probability of a white pixel: the value is the expected negative log likelihood of the
    stochastically binarised image.

    Args:
        logits: Decoder output, shape (B, ...).
        x: Pixels in [0, 1], same shape.

    Returns:
        Nats per image, summed over pixels, shape (B,).

    Raises:
        ValueError: If shapes differ.
    """
    if logits.shape != x.shape:
        raise ValueError(
            f"Pixels should have the shape of their logits, {tuple(logits.shape)}, found {tuple(x.shape)}. Give both alike."
        )
    with torch.autocast(logits.device.type, enabled=False):
        logits = _fp32(logits)
        x = x.to(logits.dtype)
        on_cpu = logits.device.type == "cpu"
        nll = (
            _BinaryCrossEntropy.apply(logits, x)
            if on_cpu
            else F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        )
        nll = nll.flatten(1).sum(1)
        return torch.where(nll == -math.inf, math.nan, nll)  # of pixels that are infinite


class _BinaryCrossEntropy(torch.autograd.Function):
    """Cross entropy of logits, four times as fast on a CPU as PyTorch's kernel, which is not vectorised there.

    ``log(1 + exp(-|l|))`` instead of ``log1p``: what is lost is below the rounding of the sum over pixels.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        return logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp(min=0)).sub_(x * logits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        logits, x = ctx.saved_tensors
        return (torch.sigmoid(logits) - x) * grad, -logits * grad if ctx.needs_input_grad[1] else None


def gaussian_nll(mean: Tensor, log_sigma: Tensor, x: Tensor) -> Tensor:
    r"""Negative log density of pixels under independent Gaussians with one shared standard deviation.

    .. math:: \sum_j \tfrac12 \left(\frac{x_j - \mu_j}{\sigma}\right)^2 + \log \sigma + \tfrac12 \log 2\pi

    Args:
        mean: Decoder output, shape (B, ...).
        log_sigma: Logarithm of the standard deviation, scalar or broadcastable, in units of pixels in [0, 1].
        x: Pixels in [0, 1], same shape as ``mean``.

    Returns:
        Nats per image, summed over pixels, shape (B,). A density: it can be negative.
    """
    with torch.autocast(mean.device.type, enabled=False):
        log_sigma = _fp32(log_sigma)
        scaled = (_fp32(x) - _fp32(mean)) * torch.exp(-log_sigma)
        return (0.5 * scaled.square() + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def gaussian_level_nll(mean: Tensor, log_sigma: Tensor, x: Tensor) -> Tensor:
    r"""Negative log probability of 8-bit pixels under independent Gaussians, rounded to the 256 levels.

    .. math:: P(x_j) = \Phi\!\left(\frac{x_j + h - \mu_j}{\sigma}\right) - \Phi\!\left(\frac{x_j - h - \mu_j}{\sigma}\right),
        \qquad h = \tfrac{1}{2 \cdot 255}

    The lowest level takes all mass below it and the highest all mass above, so that the 256 probabilities sum to one. A
    density of pixels that have 256 values alone can grow without bound; this probability cannot. Computed in fp64.

    Args:
        mean: Decoder output, shape (B, ...), in units of pixels in [0, 1].
        log_sigma: Logarithm of the standard deviation, scalar or broadcastable, same units.
        x: Pixels k / 255 with k = 0, ..., 255, same shape as ``mean``.

    Returns:
        Nats per image, summed over pixels, fp64 (B,). A probability: it is never negative.

    References:
        Ho et al., Denoising Diffusion Probabilistic Models (2020), eq. 13. arXiv:2006.11239
    """
    with torch.autocast(mean.device.type, enabled=False):
        mean, x, sigma = wide(mean), wide(x), wide(log_sigma).exp()
        upper, lower = (x - mean + 0.5 / 255) / sigma, (x - mean - 0.5 / 255) / sigma
        upper = upper.where(x < 254.5 / 255, torch.inf)
        lower = lower.where(x > 0.5 / 255, -torch.inf)
        flip = lower > 0  # in the left tail the difference of two logarithms keeps its digits
        upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
        log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
        nll = -log_upper - torch.log(-torch.expm1(log_lower - log_upper))
        return (nll.clamp(min=0) + 0 * x).flatten(1).sum(1)  # NaN is no level


def logistic_nll(mean: Tensor, log_scale: Tensor, x: Tensor) -> Tensor:
    r"""Negative log probability of 8-bit pixels under independent logistic variables, rounded to the 256 levels.

    .. math:: P(x_j) = \sigma\!\left(\frac{x_j + h - \mu_j}{s}\right) - \sigma\!\left(\frac{x_j - h - \mu_j}{s}\right),
        \qquad h = \tfrac{1}{2 \cdot 255}

    The lowest level takes all mass below it and the highest all mass above, so that the 256 probabilities sum to one. With
    :math:`a` and :math:`b` the two arguments, :math:`\log P = \log(1 - e^{b - a}) - \log(1 + e^{-a}) - \log(1 + e^b)`:
    exact and finite for every scale, so the approximation that published code takes for narrow bins is not needed.

    Args:
        mean: Decoder output, shape (B, ...), in units of pixels in [0, 1].
        log_scale: Logarithm of the logistic's scale s, scalar or broadcastable, same units.
        x: Pixels k / 255 with k = 0, ..., 255, same shape as ``mean``.

    Returns:
        Nats per image, summed over pixels, shape (B,). A probability: it is never negative.

    References:
        Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow (2016), C.3. arXiv:1606.04934
        Salimans et al., PixelCNN++ (2017), section 2.1. arXiv:1701.05517
    """
    with torch.autocast(mean.device.type, enabled=False):
        mean, x, inverse_scale = _fp32(mean), _fp32(x), torch.exp(-_fp32(log_scale))
        upper = (x - mean + 0.5 / 255) * inverse_scale
        lower = (x - mean - 0.5 / 255) * inverse_scale
        above, below = F.softplus(-upper), F.softplus(lower)  # of the mass beyond either edge
        inside = -torch.log(-torch.expm1(-inverse_scale / 255))
        lowest, highest = x < 0.5 / 255, x > 254.5 / 255
        nll = torch.where(lowest, above, torch.where(highest, below, above + below + inside))
        return nll.flatten(1).sum(1)


def gaussian_log_density(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Log density of a diagonal Gaussian, per dimension.

    .. math:: -\tfrac12 \left(\log 2\pi + \log \sigma_j^2 + (z_j - \mu_j)^2 / \sigma_j^2\right)

    Args:
        z: Where it is taken, shape (..., K).
        mean: Means, broadcastable to ``z``.
        log_var: Logarithm of variances, broadcastable to ``z``.

    Returns:
        Nats, shape (..., K), computed in at least fp32.
    """
    with torch.autocast(z.device.type, enabled=False):
        z, mean, log_var = _fp32(z), _fp32(mean), _fp32(log_var)
        return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean).square() * torch.exp(-log_var))


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Divergence of a diagonal Gaussian posterior from the standard normal prior, per dimension.

    .. math:: \mathrm{KL}_j = \tfrac12 (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)

    Args:
        mean: Posterior means, shape (B, K).
        log_var: Logarithm of posterior variances, shape (B, K).

    Returns:
        Nats, shape (B, K), computed in fp32.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B. arXiv:1312.6114
    """
    with torch.autocast(mean.device.type, enabled=False):
        mean, log_var = _fp32(mean), _fp32(log_var)
        return 0.5 * (mean.square() + log_var.exp() - log_var - 1)


def free_bits(kl: Tensor, minimum: float) -> Tensor:
    r"""KL that costs at least ``minimum`` nats in each dimension: :math:`\sum_j \max(\lambda, \overline{KL}_j)`.

    Args:
        kl: KL per sample and dimension, shape (B, K).
        minimum: Nats per dimension that are free, :math:`\lambda` >= 0; 0 gives the plain mean over samples.

    Returns:
        Scalar in nats per image.

    References:
        Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow (2016). arXiv:1606.04934
    """
    return kl.mean(0).clamp(min=minimum).sum()


def importance_bound(log_weights: Tensor) -> Tensor:
    r"""Importance-weighted bound of the log likelihood, :math:`\log \frac1S \sum_s w_s`.

    With one sample it is the evidence lower bound; it rises with their number towards :math:`\log p(x)`.

    Args:
        log_weights: :math:`\log w_s = \log p(x, z_s) - \log q(z_s|x)` for :math:`z_s \sim q(z|x)`, shape (S, B).

    Returns:
        Nats per image, shape (B,); NaN where a weight is infinite.

    References:
        Burda et al., Importance Weighted Autoencoders (2016), eq. 8. arXiv:1509.00519
    """
    bound = torch.logsumexp(_fp32(log_weights), dim=0) - math.log(len(log_weights))
    return torch.where(bound == math.inf, math.nan, bound)


class KLParts(NamedTuple):
    r"""Three parts of the mean KL, scalars in nats; with weights of one they add up to it.

    Attributes:
        index_code_mi: Mutual information of an image's number and its code, :math:`\mathrm{KL}(q(z,n) \| q(z)p(n))`.
        total_correlation: How far dimensions are from independent, :math:`\mathrm{KL}(q(z) \| \prod_j q(z_j))`.
        dimension_kl: How far each is from its prior, :math:`\sum_j \mathrm{KL}(q(z_j) \| p(z_j))`.
    """

    index_code_mi: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


def decomposed_kl(z: Tensor, mean: Tensor, log_var: Tensor, *, num_samples: int) -> KLParts:
    r"""The KL of posteriors from the standard normal prior in three parts, by minibatch-weighted sampling.

    The aggregate posterior of a training set of N images is estimated from the batch of B,

    .. math:: \log q(z_i) \approx \log \frac{1}{NB} \sum_{j=1}^{B} q(z_i | x_j)

    and likewise :math:`\log q(z_{ik})` for each dimension. N shifts the parts against each other by constants, which have
    no gradient.

    Args:
        z: One sample of each posterior, shape (B, K).
        mean: Posterior means, shape (B, K).
        log_var: Logarithm of posterior variances, shape (B, K).
        num_samples: Number N of training images.

    Returns:
        The parts; NaN where densities are infinite.

    Raises:
        ValueError: If there are fewer training images than images in the batch, or fewer than two in the batch.

    References:
        Chen et al., Isolating Sources of Disentanglement in VAEs (2018), eq. 2 and 5. arXiv:1802.04942
    """
    if num_samples < len(z):
        raise ValueError(f"A batch of {len(z)} images cannot be part of a training set of {num_samples}.")
    if len(z) < 2:
        raise ValueError(
            f"The aggregate posterior of {len(z)} image is its own posterior, whose parts say nothing. Raise "
            "data.batch_size to at least 2 samples a step."
        )
    log_prior = gaussian_log_density(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    log_posterior = gaussian_log_density(z, mean, log_var).sum(1)
    pairs = gaussian_log_density(z.unsqueeze(1), mean, log_var)  # (B, B, K): z of row i under the posterior of row j
    log_total = math.log(num_samples * len(z))
    log_aggregate = torch.logsumexp(pairs.sum(2), dim=1) - log_total
    log_marginals = (torch.logsumexp(pairs, dim=1) - log_total).sum(1)
    parts = (log_posterior - log_aggregate, log_aggregate - log_marginals, log_marginals - log_prior)
    return KLParts(*(torch.where(part.isinf(), math.nan, part).mean() for part in parts))


def _fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
