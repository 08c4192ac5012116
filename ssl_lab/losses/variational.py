"""Terms of the evidence lower bound, in nats per image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """Negative log likelihood of pixels in [0, 1] under independent Bernoulli variables.

    A grey value is read as the probability of a white pixel: the value is the expected negative log likelihood of the
    stochastically binarised image.

    Args:
        logits: Decoder output, shape (B, ...).
        x: Pixels in [0, 1], same shape.

    Returns:
        Nats per image, summed over pixels, shape (B,).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.binary_cross_entropy_with_logits(_fp32(logits), _fp32(x), reduction="none").flatten(1).sum(1)


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


def _fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
