"""Spans of a text cut out and put into a second one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_lab.devices import wide
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import NEVER, eligible_tokens

EDGE = 2  # special tokens on either side of a text that stay as they are


class Corrupted(NamedTuple):
    """A batch whose spans were cut out.

    Attributes:
        input_ids: The text with a sentinel in place of each span, padded, int64 (B, L_in).
        attention_mask: 1 at its tokens, (B, L_in).
        labels: The spans, each after its sentinel, and a last sentinel; -100 behind, int64 (B, L_out).
        cut: Which tokens were cut out, bool (B, L).
        places: Where in ``labels`` each of these stands, int64 (B, L).
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    cut: Tensor
    places: Tensor


class SpanCorruption(nn.Module):
    """Cuts random spans out of texts, drawn again for every batch.

    Of a text of n tokens, ``round(noise_density * n)`` are cut out in ``round(that / mean_span)`` spans, at least one of
    each. Lengths of the spans, and of what lies between them, are drawn as T5 does: all ways of dividing the tokens are
    equally likely, the text begins with a token that stays and ends with one that goes. Special tokens around the text
    stay; those inside of it, such as unknown ones, are treated like others. All shapes depend on L alone.

    Args:
        noise_density: Share of the tokens that is cut out.
        mean_span: Mean length of a span, in tokens.

    Raises:
        ValueError: If the share is not in (0, 1) or the length below 1.

    References:
        Raffel et al., T5 (2020), section 3.1.4. arXiv:1910.10683
    """

    def __init__(self, *, noise_density: float = 0.15, mean_span: float = 3.0) -> None:
        super().__init__()
        if not 0 < noise_density < 1 or mean_span < 1:
            raise ValueError(
                f"Spans are cut out with noise_density in (0, 1) and mean_span of at least 1, found {noise_density} and "
                f"{mean_span}. T5's are 0.15 and 3."
            )
        self.noise_density = noise_density
        self.mean_span = mean_span

    def counts(self, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens that are cut out of texts of so many, and in how many spans; texts of fewer than two stay whole."""
        n = wide(num_tokens)
        cut = (n * self.noise_density).round().clamp(min=1).minimum(n - 1).clamp(min=0)
        spans = (cut / self.mean_span).round().clamp(min=1).minimum(cut).minimum(n - cut).clamp(min=0)
        return cut.long().to(num_tokens.device), spans.long().to(num_tokens.device)

    def lengths(self, length: int) -> tuple[int, int, int]:
        """Length of the corrupted rows, length of the targets and number of spans of rows of ``length`` tokens."""
        cut, spans = self.counts(torch.arange(max(0, length - 2 * EDGE), length + 1))
        num_spans = int(spans.max())
        return length - int((cut - spans).min()), int(cut.max()) + num_spans + 1, num_spans

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spec: TextSpec,
        first_sentinel: int,
        generator: torch.Generator | None = None,
    ) -> Corrupted:
        """Corrupt a batch (B, L); the k-th span of a row is marked by the id ``first_sentinel - k``, k from 0 on."""
        draws = torch.rand(2, *input_ids.shape, device=input_ids.device, generator=generator)
        return self.corrupt(input_ids, attention_mask, spec, first_sentinel, draws)

    def corrupt(
        self, input_ids: Tensor, attention_mask: Tensor, spec: TextSpec, first_sentinel: int, draws: Tensor
    ) -> Corrupted:
        """Cut spans by given uniform draws (2, B, L): lengths of spans, and of the gaps between them."""
        input_length, target_length, max_spans = self.lengths(input_ids.shape[1])
        real = attention_mask == 1
        num_real = real.sum(1, keepdim=True)
        positions = torch.arange(input_ids.shape[1], device=real.device)
        # Further inside, special tokens are part of the text, such as unknown ones.
        inside = (positions >= EDGE) & (positions < num_real - EDGE)
        text = eligible_tokens(input_ids, attention_mask, spec) | inside
        cut, span = self._spans(text, max_spans, draws)
        sentinels = first_sentinel - span
        begins = cut & ~torch.cat([torch.zeros_like(cut[:, :1]), cut[:, :-1]], dim=1)
        kept = real & (~cut | begins)
        shortened = _compact(torch.where(begins, sentinels, input_ids), kept, kept.cumsum(1) - 1, input_length, 0)
        attention = (torch.arange(input_length, device=real.device) < kept.sum(1, keepdim=True)).long()
        places = cut.cumsum(1) + span  # behind one sentinel for each span so far
        labels = _compact(input_ids, cut, places, target_length, -100)
        marks = _compact(sentinels, begins, places - 1, target_length, -100)
        num_spans = begins.sum(1, keepdim=True)
        at_end = torch.arange(target_length, device=real.device) == cut.sum(1, keepdim=True) + num_spans
        last = torch.where(at_end & (num_spans > 0), first_sentinel - num_spans, -100)
        pad_id = spec.pad_id or 0
        return Corrupted(
            torch.where(attention == 1, shortened, pad_id),
            attention,
            torch.maximum(torch.maximum(labels, marks), last),
            cut,
            places,
        )

    def _spans(self, eligible: Tensor, max_spans: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the tokens to cut out, bool (B, L), and the number of the span they lie in, counted from 0."""
        positions = torch.arange(eligible.shape[1], device=eligible.device)
        first = eligible.byte().argmax(1, keepdim=True)
        last = len(positions) - 1 - eligible.flip(1).byte().argmax(1, keepdim=True)
        num_tokens = torch.where(eligible.any(1, keepdim=True), last - first + 1, 0)
        num_cut, num_spans = self.counts(num_tokens)
        gone = _random_lengths(draws[0], num_cut, num_spans, max_spans)
        staying = _random_lengths(draws[1], num_tokens - num_cut, num_spans, max_spans)
        ends = torch.stack([staying, gone], dim=2).flatten(1).cumsum(1)
        rank = (positions - first).expand_as(eligible).contiguous()
        stretch = torch.searchsorted(ends, rank, right=True)
        cut = (stretch % 2 == 1) & (rank >= 0) & (rank < num_tokens)
        return cut, torch.where(cut, stretch // 2, 0)


def _random_lengths(draws: Tensor, num_items: Tensor, num_parts: Tensor, max_parts: int) -> Tensor:
    """Lengths (B, max_parts) of the parts into which items are divided, each at least 1; 0 beyond ``num_parts``."""
    places = torch.arange(draws.shape[1], device=draws.device)
    keys = torch.where(places < num_items - 1, draws, NEVER)
    ranks = torch.zeros_like(keys, dtype=torch.long)
    ranks = ranks.scatter(1, torch.argsort(keys, dim=1, stable=True), places.expand_as(ranks))
    cuts = (ranks < num_parts - 1).long()  # behind which items a part ends
    part = torch.cat([torch.zeros_like(cuts[:, :1]), cuts.cumsum(1)[:, :-1]], dim=1)
    exists = (places < num_items).long() * (num_parts > 0)
    return torch.zeros_like(cuts[:, :1]).repeat(1, max_parts).scatter_add(1, part.clamp(max=max_parts - 1), exists)


def _compact(values: Tensor, chosen: Tensor, places: Tensor, length: int, blank: int) -> Tensor:
    """Rows (B, length) with the chosen values at their places."""
    out = torch.full((len(values), length + 1), blank, dtype=values.dtype, device=values.device)
    return out.scatter(1, torch.where(chosen, places, length).clamp(max=length), values)[:, :length]
