"""Which tokens are hidden, and by what."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from ssl_lab.types import DataSpec


def eligible_tokens(input_ids: Tensor, attention_mask: Tensor, spec: DataSpec) -> Tensor:
    """Where a mask may fall, bool (B, L): real tokens that are neither special nor padding."""
    return ~torch.isin(input_ids, _special_ids(spec, input_ids.device)) & (attention_mask == 1)


class TokenMasking(nn.Module):
    """Hides single tokens, drawn anew for every batch.

    Each eligible token is chosen with ``mask_prob``; in a row where that chooses none, the eligible token with the
    smallest draw is. Of the chosen, ``mask_token_share`` become the mask token, ``random_token_share`` a random token
    that is not special, and the rest stay.

    Args:
        mask_prob: Probability of choosing a token.
        mask_token_share: Share of the chosen that become the mask token.
        random_token_share: Share of the chosen that become a random token.

    References:
        Devlin et al., BERT (2018), section 3.1. arXiv:1810.04805
    """

    def __init__(
        self, *, mask_prob: float = 0.15, mask_token_share: float = 0.8, random_token_share: float = 0.1
    ) -> None:
        super().__init__()
        shares = mask_token_share + random_token_share
        if not 0 < mask_prob < 1 or min(mask_token_share, random_token_share) < 0 or shares > 1 + 1e-9:
            raise ValueError(
                f"Masking needs mask_prob in (0, 1) and shares that add up to at most 1, found {mask_prob}, "
                f"{mask_token_share} and {random_token_share}."
            )
        self.mask_prob = mask_prob
        self.mask_token_share = mask_token_share
        self.random_token_share = random_token_share

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, spec: DataSpec, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Corrupted ids and labels, int64 (B, L); labels are the original id where chosen and -100 elsewhere."""
        draws = torch.rand(3, *input_ids.shape, device=input_ids.device, generator=generator)
        return self.mask(input_ids, attention_mask, spec, draws)

    def mask(self, input_ids: Tensor, attention_mask: Tensor, spec: DataSpec, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The same for given uniform draws (3, B, L): which token, what happens to it, which random token."""
        assert spec.mask_id is not None and spec.vocab_size is not None
        which, what, replacement = draws
        eligible = eligible_tokens(input_ids, attention_mask, spec)
        which = torch.where(eligible, which, 2.0)
        chosen = eligible & ((which < self.mask_prob) | (which == which.min(1, keepdim=True).values))
        words = _ordinary_ids(spec, input_ids.device)
        random_ids = words[(replacement * len(words)).long().clamp(max=len(words) - 1)]
        corrupted = torch.where(what < self.mask_token_share + self.random_token_share, random_ids, input_ids)
        corrupted = torch.where(what < self.mask_token_share, spec.mask_id, corrupted)
        return torch.where(chosen, corrupted, input_ids), torch.where(chosen, input_ids, -100)


def fixed_masks(
    input_ids: Tensor, attention_mask: Tensor, spec: DataSpec, *, index: Tensor, seed: int, mask_prob: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Masks for evaluation: a function of (seed, index of the sample, position) alone, whatever the batches.

    Args:
        input_ids: Token ids, int64 (B, L).
        attention_mask: 1 at real tokens, (B, L).
        spec: Special tokens and vocabulary.
        index: Row of each sample in its split, int64 (B,).
        seed: Another seed gives other masks.
        mask_prob: Probability of choosing a token.

    Returns:
        Corrupted ids and labels as of :class:`TokenMasking`, with its 80/10/10 shares.
    """
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    counter = (seed * 1_000_003 + index.unsqueeze(1)) * 65_537 + positions
    draws = torch.stack([_hash_to_uniform(3 * counter + k) for k in range(3)])
    return TokenMasking(mask_prob=mask_prob).mask(input_ids, attention_mask, spec, draws)


@cache
def _special_ids(spec: DataSpec, device: torch.device) -> Tensor:
    return torch.tensor(spec.special_ids, dtype=torch.long, device=device)


@cache
def _ordinary_ids(spec: DataSpec, device: torch.device) -> Tensor:
    special = set(spec.special_ids)
    assert spec.vocab_size is not None
    return torch.tensor([i for i in range(spec.vocab_size) if i not in special], device=device)


def _hash_to_uniform(counter: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) from int64 counters, by the multiply-and-shift mixing of MurmurHash3."""
    x = counter
    for multiplier in (-49064778989728563, -4265267296055464877):  # its two odd 64-bit constants, as signed numbers
        x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * multiplier
    x = x ^ ((x >> 33) & 0x7FFFFFFF)
    return ((x >> 31) & 0xFFFFFF).float() / 2**24  # 24 bits are exact in fp32
