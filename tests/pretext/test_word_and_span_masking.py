"""Masking of whole words and of spans, beside slow loops; what all masking has in common is in test_masking.py."""

from dataclasses import replace

import pytest
import torch

from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import SpanMasking, TokenMasking, WholeWordMasking, Words, eligible_tokens

SPEC = TextSpec(
    length=64,
    vocab_size=200,
    pad_id=0,
    mask_id=4,
    special_ids=(0, 1, 2, 3, 4),
    continues_word=tuple(range(120, 200)),
)
CLS, SEP, UNK = 2, 3, 1
KINDS = (TokenMasking, WholeWordMasking, SpanMasking)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(batch=64, length=64, seed=0):
    """Packed rows: two documents of words of several tokens, an unknown token inside, padding at the end."""
    ids = torch.randint(5, 200, (batch, length), generator=seeded(seed))
    positions = torch.arange(length).expand_as(ids)
    cut = torch.randint(10, 30, (batch, 1), generator=seeded(seed + 1))
    end = torch.randint(40, length, (batch, 1), generator=seeded(seed + 2))
    document_ids = torch.where(positions > end, 0, 1 + (positions > cut).long())
    ids[:, 5] = UNK
    ids = torch.where((positions == cut) | (positions == end), SEP, ids)
    ids = torch.where((positions == 0) | (positions == cut + 1), CLS, ids)
    ids[::3, 0] = 150  # a row may begin with the middle of a word
    return torch.where(document_ids == 0, SPEC.pad_id, ids), (document_ids > 0).long(), document_ids


def without_borders(batch=64, length=64):
    """Packed rows whose documents have no special token between them."""
    ids = torch.randint(120, 200, (batch, length), generator=seeded(3))
    document_ids = 1 + (torch.arange(length) >= 20).long().expand(batch, -1)
    return ids, torch.ones_like(ids), document_ids


def words_of(ids, mask, document_ids):
    """Lists of positions, word by word, found one token at a time."""
    words, previous = [], None
    for j, (token, real, document) in enumerate(zip(ids, mask, document_ids, strict=True)):
        if not real or token in SPEC.special_ids:
            previous = None
            continue
        if previous == document and token in SPEC.continues_word:
            words[-1].append(j)
        else:
            words.append([j])
        previous = document
    return words


def rows(*columns):
    return zip(*(column.tolist() for column in columns), strict=True)


@pytest.mark.parametrize("make", [texts, without_borders])
def test_words_are_those_of_a_slow_loop(make):
    ids, mask, document_ids = make()
    found = Words(ids, eligible_tokens(ids, mask, SPEC), SPEC, document_ids)
    number, start, segment = found.numbered()
    first = found.first_token()
    for b, row in enumerate(rows(ids, mask, document_ids)):
        words = words_of(*row)
        assert found.begins[b].nonzero().flatten().tolist() == [word[0] for word in words]
        for k, word in enumerate(words):
            assert number[b, word].tolist() == [k] * len(word)
            assert first[b, word].tolist() == [word[0]] * len(word)
            assert start[b, k] == word[0]
            near = segment[b, k] == segment[b, k - 1] if k else False
            gap = k > 0 and (word[0] > words[k - 1][-1] + 1 or row[2][word[0]] != row[2][words[k - 1][-1]])
            assert bool(near) == (k > 0 and not gap)
        assert len(set(segment[b, len(words) :].tolist())) == segment.shape[1] - len(words)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("make", [texts, without_borders])
def test_whole_words_are_hidden_as_a_whole(make, exact):
    ids, mask, document_ids = make()
    masking = WholeWordMasking(mask_prob=0.3, exact=exact)
    chosen = masking(ids, mask, SPEC, seeded(), document_ids)[1] != -100
    for b, row in enumerate(rows(ids, mask, document_ids)):
        words = words_of(*row)
        parts = [chosen[b, word] for word in words]
        assert all(part.all() or not part.any() for part in parts)
        assert chosen[b].sum() == sum(int(part.sum()) for part in parts)
        assert chosen[b].any()


def test_exact_whole_words_fill_the_budget_as_far_as_words_fit():
    ids, mask, document_ids = texts()
    chosen = WholeWordMasking(mask_prob=0.2, exact=True)(ids, mask, SPEC, seeded(), document_ids)[1] != -100
    full = 0
    for b, row in enumerate(rows(ids, mask, document_ids)):
        words = words_of(*row)
        budget = max(1, round(0.2 * sum(map(len, words))))
        left = budget - int(chosen[b].sum())
        lengths = [len(word) for word in words if not chosen[b, word[0]]]
        assert left >= 0
        assert left == 0 or min(lengths) > left
        full += left == 0
    assert full > 0.95 * len(ids)
    long_word = torch.full((1, 8), 150)
    everything = WholeWordMasking(mask_prob=0.1, exact=True)(long_word, torch.ones_like(long_word), SPEC)[1]
    assert (everything != -100).all()  # its only word is longer than its share


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [texts, without_borders])
def test_exactly_the_rounded_share_and_at_least_one(kind, make):
    ids, mask, document_ids = make()
    mask = mask.clone()
    mask[0] = 0
    mask[1, 3:] = 0
    eligible = eligible_tokens(ids, mask, SPEC)
    masking = kind(mask_prob=0.15, exact=True)
    labels = masking(ids, mask, SPEC, seeded(), document_ids)[1]
    chosen = labels != -100
    assert not (chosen & ~eligible).any()
    if kind is not WholeWordMasking:
        expected = [max(1, round(0.15 * n)) if n else 0 for n in eligible.sum(1).tolist()]
        assert chosen.sum(1).tolist() == expected
        assert max(expected) <= masking.max_predictions(64)
    else:
        assert masking.max_predictions(64) is None
    assert kind(exact=False).max_predictions(64) is None
    assert not chosen[0].any() and chosen[1:].any(1).all()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_shares(kind, exact):
    ids = torch.randint(5, 200, (4000, 64), generator=seeded())
    mask = torch.ones_like(ids)
    corrupted, labels = kind(mask_prob=0.15, exact=exact)(ids, mask, SPEC, seeded(1))
    chosen = labels != -100
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(corrupted[~chosen], ids[~chosen])
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (corrupted[chosen] == SPEC.mask_id).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (corrupted[chosen] == ids[chosen]).float().mean().item() == pytest.approx(0.1 + 0.1 / 195, abs=0.015)
    assert not torch.isin(corrupted[chosen], torch.tensor([0, 1, 2, 3])).any()


@pytest.mark.parametrize("exact", [False, True])
def test_lengths_of_spans_are_geometric_with_a_mean_of_3_8(exact):
    spec = replace(SPEC, continues_word=())
    ids = torch.randint(5, 200, (400, 400), generator=seeded())
    masking = SpanMasking(mask_prob=0.01, exact=exact)  # so few that spans hardly meet
    chosen = (masking(ids, torch.ones_like(ids), spec, seeded(1))[1] != -100).long()
    edges = torch.nn.functional.pad(chosen, (1, 1)).diff(dim=1)
    lengths = edges.eq(-1).nonzero()[:, 1] - edges.eq(1).nonzero()[:, 1]
    if exact:  # the last span of a row is cut, here to four tokens in two spans or so
        assert lengths.max() == 4
    else:
        assert lengths.max() >= 10
        assert lengths.float().mean().item() == pytest.approx(3.8, abs=0.35)
        longer = (lengths > 4).float().mean().item()
        assert longer == pytest.approx((0.8**4 - 0.8**10) / (1 - 0.8**10), abs=0.05)


def test_spans_equal_a_slow_loop_over_words():
    ids, mask, document_ids = texts()
    masking = SpanMasking(mask_prob=0.25)
    draws = torch.rand(4, *ids.shape, generator=seeded())
    words = Words(ids, eligible_tokens(ids, mask, SPEC), SPEC, document_ids)
    keys, what = masking.keys(words, draws)
    for b, row in enumerate(rows(ids, mask, document_ids)):
        best = {}
        found = words_of(*row)
        for k, word in enumerate(found):
            u = draws[3, b, word[0]].double().item()
            total, length = 0.0, 0
            while total <= u * (1 - 0.8**10) and length < 10:
                total += 0.2 * 0.8**length
                length += 1
            previous = word[0]
            for other in found[k : k + length]:
                if other[0] > previous + 1 or row[2][other[0]] != row[2][word[0]]:
                    break
                for j in other:
                    best[j] = min(best.get(j, (2.0, 0.0)), (draws[0, b, word[0]].item(), draws[1, b, word[0]].item()))
                previous = other[-1]
        for j, (key, fate) in best.items():
            assert keys[b, j].item() == key and what[b, j].item() == fate


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_borders_of_documents_change_nothing_elsewhere_and_rows_are_independent(kind, exact):
    ids, mask, document_ids = without_borders()
    masking = kind(exact=exact)
    draws = torch.rand(masking.num_draws, *ids.shape, generator=seeded())
    whole = masking.mask(ids, mask, SPEC, draws, document_ids)
    for size in (1, 7):
        parts = [
            masking.mask(ids[r], mask[r], SPEC, draws[:, r], document_ids[r]) for r in torch.arange(64).split(size)
        ]
        assert all(torch.equal(torch.cat(part), a) for part, a in zip(zip(*parts, strict=True), whole, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides(kind):
    ids, mask, document_ids = texts()
    first, again, other = (kind()(ids, mask, SPEC, seeded(seed), document_ids) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])


def test_impossible_spans_are_refused():
    for settings in ({"geometric_prob": 0.0}, {"geometric_prob": 1.0}, {"max_span": 0}):
        with pytest.raises(ValueError, match="SpanBERT's are 0.2 and 10"):
            SpanMasking(**settings)
