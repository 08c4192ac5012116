"""Masking of tokens, and their replacements."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_lab.devices import narrow, wide
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.packing import starts_of_documents

NEVER = 2.0  # the key of tokens that are not chosen; others lie below 1
NUM_FILLINGS = 3  # rounds in which whole words are put where they still fit


def eligible_tokens(input_ids: Tensor, attention_mask: Tensor, spec: TextSpec) -> Tensor:
    """Where a mask may fall, bool (B, L): real tokens that are neither special nor padding."""
    return ~torch.isin(input_ids, _special_ids(spec, input_ids.device)) & (attention_mask == 1)


class Masking(nn.Module, ABC):
    """Hides tokens of a batch, drawn again each time: subclasses choose which, this class how they are replaced.

    Subclasses give each eligible token a key in [0, 1); tokens that are chosen only together have the same. Of the chosen,
    ``mask_token_share`` become the mask token, ``random_token_share`` a random token that is not special, and the rest
    stay. At least one token of each row is chosen. Specials, padding and tokens outside the attention mask never are.

    Args:
        mask_prob: Share of the eligible tokens that is chosen, on average.
        mask_token_share: Share of the chosen that become the mask token.
        random_token_share: Share of the chosen that become a random token.
        exact: Choose the same number in every row with as many eligible tokens n, ``round(mask_prob * n)``; otherwise
            choices are independent and the number varies.

    Raises:
        ValueError: If ``mask_prob`` is not in (0, 1), or the shares are negative or add up to more than 1.
    """

    num_draws: ClassVar[int] = 3

    def __init__(self, *, mask_prob: float, mask_token_share: float, random_token_share: float, exact: bool) -> None:
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
        self.exact = exact
        self.threshold = mask_prob  # of keys, where choices are independent

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spec: TextSpec,
        generator: torch.Generator | None = None,
        document_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Corrupted ids and labels, int64 (B, L); labels are the original id where chosen and -100 elsewhere."""
        draws = torch.rand(self.num_draws, *input_ids.shape, device=input_ids.device, generator=generator)
        return self.mask(input_ids, attention_mask, spec, draws, document_ids)

    def mask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spec: TextSpec,
        draws: Tensor,
        document_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The same for given uniform draws (num_draws, B, L): which token, what happens to it, which random token."""
        assert spec.mask_id is not None
        eligible = eligible_tokens(input_ids, attention_mask, spec)
        words = Words(input_ids, eligible, spec, document_ids)
        keys, what = self.keys(words, draws)
        keys = torch.where(eligible, keys, NEVER)
        chosen = eligible & (self.choose_exactly(keys, eligible) if self.exact else self.choose(keys))
        ordinary = _ordinary_ids(spec, input_ids.device)
        random_ids = ordinary[(draws[2] * len(ordinary)).long().clamp(max=len(ordinary) - 1)]
        corrupted = torch.where(what < self.mask_token_share + self.random_token_share, random_ids, input_ids)
        corrupted = torch.where(what < self.mask_token_share, spec.mask_id, corrupted)
        return torch.where(chosen, corrupted, input_ids), torch.where(chosen, input_ids, -100)

    @abstractmethod
    def keys(self, words: Words, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Key of each token, the smallest chosen first, and the draw that decides what happens to it, both (B, L)."""

    def choose(self, keys: Tensor) -> Tensor:
        """Tokens whose key is below the threshold, and those with the smallest of the row."""
        return (keys < self.threshold) | (keys == keys.min(1, keepdim=True).values)

    def choose_exactly(self, keys: Tensor, eligible: Tensor) -> Tensor:
        """The ``round(mask_prob * n)`` tokens with the smallest keys, at least one."""
        order = torch.argsort(keys, dim=1, stable=True)
        ranks = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
        return torch.zeros_like(order).scatter(1, order, ranks) < self._budget(eligible)

    def _budget(self, eligible: Tensor) -> Tensor:
        number = wide(eligible.sum(1, keepdim=True)) * self.mask_prob
        return narrow(number.round().clamp(min=1), eligible.device)

    def max_predictions(self, length: int) -> int | None:
        """Return the largest number of tokens chosen in a row of ``length``, if that is known beforehand."""
        return max(1, round(self.mask_prob * length)) if self.exact else None


class TokenMasking(Masking):
    """Hides single tokens.

    Args:
        mask_prob: Share of the eligible tokens that is chosen, on average.
        mask_token_share: Share of the chosen that become the mask token.
        random_token_share: Share of the chosen that become a random token.
        exact: Choose the same number in every row with as many eligible tokens.

    References:
        Devlin et al., BERT (2018), section 3.1. arXiv:1810.04805
    """

    def __init__(
        self,
        *,
        mask_prob: float = 0.15,
        mask_token_share: float = 0.8,
        random_token_share: float = 0.1,
        exact: bool = False,
    ) -> None:
        super().__init__(
            mask_prob=mask_prob, mask_token_share=mask_token_share, random_token_share=random_token_share, exact=exact
        )

    def keys(self, words: Words, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Give each token a key."""
        return draws[0], draws[1]


class WholeWordMasking(Masking):
    """Hides whole words: all tokens of a word are chosen or none.

    What happens to a chosen token, the mask token, a random one or nothing, is drawn for each token, as in BERT's code.
    With ``exact``, words are taken in random order as long as they fit into ``round(mask_prob * n)`` tokens; a row whose
    words are all longer than that loses one word nevertheless, and one in which no word fits what is left hides less.

    Args:
        mask_prob: Share of the eligible tokens that is chosen, on average.
        mask_token_share: Share of the chosen that become the mask token.
        random_token_share: Share of the chosen that become a random token.
        exact: Choose, as far as words permit, the same number in every row with as many eligible tokens.

    References:
        Devlin et al., BERT (2018), code of May 2019 (whole word masking). arXiv:1810.04805
    """

    def __init__(
        self,
        *,
        mask_prob: float = 0.15,
        mask_token_share: float = 0.8,
        random_token_share: float = 0.1,
        exact: bool = False,
    ) -> None:
        super().__init__(
            mask_prob=mask_prob, mask_token_share=mask_token_share, random_token_share=random_token_share, exact=exact
        )

    def keys(self, words: Words, draws: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens of a word have the key of its first."""
        return draws[0].gather(1, words.first_token()), draws[1]

    def choose_exactly(self, keys: Tensor, eligible: Tensor) -> Tensor:
        """Words in the order of their keys as long as they fit, then later ones that still do."""
        budget = self._budget(eligible)
        chosen = torch.zeros_like(eligible)
        for _ in range(NUM_FILLINGS):
            left = budget - chosen.sum(1, keepdim=True)
            ordered, order = torch.sort(torch.where(chosen, NEVER, keys), dim=1, stable=True)
            length = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)
            too_long = torch.zeros_like(chosen).scatter(1, order, length > left)
            ordered, order = torch.sort(torch.where(chosen | too_long, NEVER, keys), dim=1, stable=True)
            fits = (torch.searchsorted(ordered, ordered, right=True) <= left) & (ordered < NEVER)
            chosen = chosen | torch.zeros_like(chosen).scatter(1, order, fits)
        return chosen | (~chosen.any(1, keepdim=True) & (keys == keys.min(1, keepdim=True).values))

    def max_predictions(self, length: int) -> int | None:
        """Unknown: a row may have to lose a word that is longer than its share."""
        return None


class SpanMasking(Masking):
    r"""Hides spans of words, of geometric length.

    .. math:: P(n) \propto q\,(1 - q)^{n - 1}, \quad 1 \le n \le n_\max

    words; the mean is 3.8 for the paper's q = 0.2 and a longest span of 10. Any word may begin a span, spans end at
    special tokens and at the end of a document, and all tokens of a span meet the same fate. Tokenizers whose ids do not
    tell where words begin have spans of tokens.

    With ``exact``, words are drawn one after the other to begin a span, until ``round(mask_prob * n)`` tokens are chosen,
    and the last span is cut to that number. Otherwise each word begins a span with the probability at which
    ``mask_prob`` of the tokens inside of a long text are chosen. Spans may overlap or touch; the paper draws again where they
    overlap.

    Args:
        mask_prob: Share of the eligible tokens that is chosen, on average.
        mask_token_share: Share of the chosen that become the mask token.
        random_token_share: Share of the chosen that become a random token.
        exact: Choose the same number in every row with as many eligible tokens.
        geometric_prob: Parameter q of the length.
        max_span: Words of the longest span.

    Raises:
        ValueError: If the parameters of the length make no sense.

    References:
        Joshi et al., SpanBERT (2020), section 3.1. arXiv:1907.10529
    """

    num_draws: ClassVar[int] = 4

    def __init__(
        self,
        *,
        mask_prob: float = 0.15,
        mask_token_share: float = 0.8,
        random_token_share: float = 0.1,
        exact: bool = False,
        geometric_prob: float = 0.2,
        max_span: int = 10,
    ) -> None:
        super().__init__(
            mask_prob=mask_prob, mask_token_share=mask_token_share, random_token_share=random_token_share, exact=exact
        )
        if not 0 < geometric_prob < 1 or max_span < 1:
            raise ValueError(
                f"Spans need geometric_prob in (0, 1) and max_span of at least 1, found {geometric_prob} and {max_span}. "
                "SpanBERT's are 0.2 and 10."
            )
        self.geometric_prob = geometric_prob
        self.max_span = max_span
        self.threshold = self._start_prob()

    def _start_prob(self) -> float:
        """Probability of beginning a span at which a word is covered by one with probability ``mask_prob``."""
        rest = [(1 - self.geometric_prob) ** j for j in range(self.max_span + 1)]
        reaches = [(r - rest[-1]) / (1 - rest[-1]) for r in rest[:-1]]  # P(n > j) of a span that began j words before
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            covered = 1 - math.prod(1 - middle * reach for reach in reaches)
            low, high = (middle, high) if covered < self.mask_prob else (low, middle)
        return high

    def keys(self, words: Words, draws: Tensor) -> tuple[Tensor, Tensor]:
        """A token has the smallest key of all spans that cover it, and the fate of that span."""
        rest = (1 - self.geometric_prob) ** self.max_span
        lengths = torch.log1p(-draws[3] * (1 - rest)) / math.log(1 - self.geometric_prob)
        lengths = lengths.floor().long().clamp(max=self.max_span - 1) + 1
        number, start, segment = words.numbered()
        key, length = draws[0].gather(1, start), lengths.gather(1, start)
        best, origin = torch.full_like(key, NEVER), start
        for j in range(min(self.max_span, key.shape[1])):
            span, there = slice(None, key.shape[1] - j), slice(j, None)
            covers = (length[:, span] > j) & (segment[:, span] == segment[:, there]) & (key[:, span] < best[:, there])
            best = torch.cat([best[:, :j], torch.where(covers, key[:, span], best[:, there])], dim=1)
            origin = torch.cat([origin[:, :j], torch.where(covers, start[:, span], origin[:, there])], dim=1)
        return best.gather(1, number), draws[1].gather(1, origin.gather(1, number))


class Words:
    """Where words begin and end in a batch of token ids.

    A segment is a stretch of eligible tokens of one document; no word goes beyond it.

    Args:
        input_ids: Token ids, int64 (B, L).
        eligible: Tokens that are neither special nor padding, bool (B, L).
        spec: Which ids continue a word.
        document_ids: Number of the document of each token, (B, L), where a row holds several.
    """

    def __init__(self, input_ids: Tensor, eligible: Tensor, spec: TextSpec, document_ids: Tensor | None = None) -> None:
        self.eligible = eligible
        self._positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        self._breaks = ~eligible
        if document_ids is not None:
            self._breaks = self._breaks | starts_of_documents(document_ids)
        continues = _continues_word(spec, input_ids.device)[input_ids]
        before = torch.cat([torch.zeros_like(eligible[:, :1]), eligible[:, :-1]], dim=1)
        self.begins = eligible & (~continues | ~before | self._breaks)

    def first_token(self) -> Tensor:
        """Position of the first token of each token's word, int64 (B, L); arbitrary outside of words."""
        return torch.where(self.begins, self._positions, 0).cummax(1).values

    def numbered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Number of each token's word, first token and segment of each word, int64 (B, L).

        There are L places for words, more than words; those left over have segments of their own.
        """
        number = self.begins.cumsum(1) - 1
        length = number.shape[1]
        place = torch.where(self.begins, number, length)
        blank = torch.zeros_like(number[:, :1])
        start = torch.cat([torch.zeros_like(number), blank], 1).scatter(1, place, self._positions)[:, :length]
        none = -1 - torch.cat([self._positions, blank], 1)
        segment = none.scatter(1, place, self._breaks.cumsum(1))[:, :length]
        return number.clamp(min=0), start, segment


def fixed_masks(
    input_ids: Tensor, attention_mask: Tensor, spec: TextSpec, *, index: Tensor, seed: int, mask_prob: float = 0.15
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
    draws = fixed_draws(index, input_ids.shape[1], seed=seed, num_draws=3)
    return TokenMasking(mask_prob=mask_prob).mask(input_ids, attention_mask, spec, draws)


def fixed_draws(index: Tensor, length: int, *, seed: int, num_draws: int) -> Tensor:
    """Uniform numbers in [0, 1), shape (num_draws, B, length): functions of (seed, index of the sample, position) alone.

    Args:
        index: Row of each sample in its split, int64 (B,).
        length: Number of positions.
        seed: Another seed gives other numbers.
        num_draws: Numbers for each position.
    """
    positions, rows = torch.arange(length, device=index.device), index.unsqueeze(1)
    counter = (seed * 1_000_003 + rows % 1_000_003) * 65_537 + positions % 65_537
    block = _mix((rows // 1_000_003 << 24) + positions // 65_537)  # 0 in the first, so that counters stay small there
    return torch.stack([_hash_to_uniform((num_draws * counter + k) ^ block) for k in range(num_draws)])


@cache
def _special_ids(spec: TextSpec, device: torch.device) -> Tensor:
    return torch.tensor(spec.special_ids, dtype=torch.long, device=device)


@cache
def _continues_word(spec: TextSpec, device: torch.device) -> Tensor:
    table = torch.zeros(spec.vocab_size, dtype=torch.bool)
    table[list(spec.continues_word)] = True
    return table.to(device)


@cache
def _ordinary_ids(spec: TextSpec, device: torch.device) -> Tensor:
    special = set(spec.special_ids)
    return torch.tensor([i for i in range(spec.vocab_size) if i not in special], device=device)


def _hash_to_uniform(counter: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) from int64 counters."""
    return ((_mix(counter) >> 31) & 0xFFFFFF).float() / 2**24  # 24 bits are exact in fp32


def _mix(counter: Tensor) -> Tensor:
    """The multiply-and-shift mixing of MurmurHash3: a permutation of int64 that keeps 0."""
    x = counter
    for multiplier in (-49064778989728563, -4265267296055464877):  # its two odd 64-bit constants, as signed numbers
        x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * multiplier
    return x ^ ((x >> 33) & 0x7FFFFFFF)
