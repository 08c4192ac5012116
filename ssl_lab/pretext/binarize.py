"""Grey images as black and white ones."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ssl_lab.pretext.masking import fixed_draws

Binarization: TypeAlias = Literal["none", "stochastic", "static", "threshold"]


class Binarize(nn.Module):
    """Turns pixels into 0 or 1, so that a Bernoulli likelihood is a probability of images.

    ``stochastic`` reads a grey value as the probability of a white pixel and draws anew in each training step; in
    evaluation the draw is a function of the image's index alone, so that likelihoods can be compared. ``static`` takes
    the latter in training too, as in fixed binarised data sets. ``threshold`` cuts at 1/2, and ``none`` leaves pixels as
    they are.

    Args:
        how: One of these words.

    Raises:
        ValueError: If it is none of them.

    References:
        Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks (2008).
        Burda et al., Importance Weighted Autoencoders (2016), section 5. arXiv:1509.00519
    """

    def __init__(self, how: Binarization = "stochastic") -> None:
        super().__init__()
        if how not in get_args(Binarization):
            raise ValueError(f"There is no binarize={how!r}. Choose from {', '.join(get_args(Binarization))}.")
        self.how = how

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Pixels of the same shape and type.

        Args:
            x: Pixels in [0, 1], shape (B, C, H, W).
            index: Row of each image in its split, int64 (B,), for draws that stay.

        Raises:
            ValueError: If a fixed draw is asked for without an index.
        """
        if self.how == "none":
            return x
        if self.how == "threshold":
            return (x >= 0.5).to(x.dtype)
        if self.training and self.how == "stochastic":
            return (torch.rand_like(x) < x).to(x.dtype)
        if index is None:
            raise ValueError(
                f"binarize={self.how} draws by the index of each image, but the batch has no column 'index'. Add it, or "
                "set method.binarize=threshold."
            )
        draws = fixed_draws(index, x[0].numel(), seed=0, num_draws=1)[0]
        return (draws.view_as(x) < x).to(x.dtype)
