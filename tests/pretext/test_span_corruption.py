import pytest
import torch

from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.span_corruption import SpanCorruption

SPEC = TextSpec(length=64, vocab_size=200, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))
CLS, SEP, UNK, FIRST = 2, 3, 1, 255


def texts(batch=200, length=64, seed=0):
    """[CLS] words [SEP] padding, of many lengths, with an unknown token in between."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 200, (batch, length), generator=generator)
    ids[:, 2] = UNK
    ends = torch.randint(4, length, (batch, 1), generator=generator)
    ends[0] = length - 1
    positions = torch.arange(length)
    ids = torch.where(positions == ends, SEP, torch.where(positions > ends, 0, ids))
    ids[:, 0] = CLS
    return ids, (positions <= ends).long()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slowly(ids, cut):
    """Corrupted text and targets of one row, token by token."""
    inputs, targets, spans = [], [], 0
    for j, token in enumerate(ids):
        if not cut[j]:
            inputs.append(token)
            continue
        if j == 0 or not cut[j - 1]:
            inputs.append(FIRST - spans)
            targets.append(FIRST - spans)
            spans += 1
        targets.append(token)
    return inputs, [*targets, FIRST - spans]


@pytest.mark.parametrize(("density", "mean_span"), [(0.15, 3.0), (0.5, 3.0), (0.15, 1.0), (0.9, 8.0)])
def test_equals_a_slow_loop_and_nothing_is_lost(density, mean_span):
    ids, mask = texts()
    corruption = SpanCorruption(noise_density=density, mean_span=mean_span)
    corrupted = corruption(ids, mask, SPEC, FIRST, seeded())
    input_length, target_length, max_spans = corruption.lengths(64)
    assert corrupted.input_ids.shape == corrupted.attention_mask.shape == (200, input_length)
    assert corrupted.labels.shape == (200, target_length)
    for b in range(len(ids)):
        n = int(mask[b].sum())
        inputs, targets = slowly(ids[b, :n].tolist(), corrupted.cut[b].tolist())
        assert corrupted.input_ids[b].tolist() == inputs + [0] * (input_length - len(inputs))
        assert int(corrupted.attention_mask[b].sum()) == len(inputs)
        assert corrupted.labels[b].tolist() == targets + [-100] * (target_length - len(targets))
        cut = corrupted.cut[b]
        assert torch.equal(corrupted.labels[b][corrupted.places[b][cut]], ids[b][cut])
        words = n - 2
        num_cut = min(max(round(words * density), 1), words - 1)
        num_spans = min(max(round(num_cut / mean_span), 1), num_cut, words - num_cut)
        assert int(cut.sum()) == num_cut and targets[-1] == FIRST - num_spans
        assert num_spans <= max_spans
        assert not cut[0] and not cut[n - 1 :].any() and not cut[1] and cut[n - 2]


def test_lengths_are_those_of_t5():
    """T5's ``compute_input_and_target_lengths`` has 568, 512 and 114, an end token at each; ours is the last sentinel."""
    input_length, target_length, num_spans = SpanCorruption().lengths(568)
    assert (input_length, target_length, num_spans) == (512 - 1, 114, 28)


def test_all_ways_of_dividing_are_equally_likely():
    ids = torch.full((20_000, 8), 7)
    corrupted = SpanCorruption(noise_density=0.5, mean_span=2.0)(ids, torch.ones_like(ids), SPEC, FIRST, seeded())
    patterns, counts = corrupted.cut.unique(dim=0, return_counts=True)
    assert len(patterns) == 9  # four tokens go and four stay, each in two parts: 3 x 3 ways
    assert counts.min() > 0.9 * 20_000 / 9 and counts.max() < 1.1 * 20_000 / 9


def test_a_seed_decides_and_short_texts_stay_whole():
    ids, mask = texts()
    first, again, other = (SpanCorruption()(ids, mask, SPEC, FIRST, seeded(seed)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.cut, other.cut)
    short = torch.tensor([[CLS, 9, SEP, 0, 0], [CLS, SEP, 0, 0, 0], [0, 0, 0, 0, 0]])
    corrupted = SpanCorruption()(short, (short > 0).long(), SPEC, FIRST, seeded())
    assert (corrupted.labels == -100).all()
    assert torch.equal(corrupted.input_ids[:, :5], short[:, : corrupted.input_ids.shape[1]])


def test_impossible_spans_are_refused():
    for settings in ({"noise_density": 0.0}, {"noise_density": 1.0}, {"mean_span": 0.5}):
        with pytest.raises(ValueError, match="T5's are 0.15 and 3"):
            SpanCorruption(**settings)


def test_runs_of_unknown_tokens_are_text():
    """At either end of a text: no token, no mark and no separator is lost."""
    corruption = SpanCorruption()
    for begin, end in ((0, 0), (40, 0), (0, 40), (20, 30)):
        ids = torch.randint(5, 200, (50, 64), generator=seeded(begin + end))
        ids[:, 1 : 1 + begin], ids[:, 63 - end : 63] = UNK, UNK
        ids[:, 0], ids[:, 63] = CLS, SEP
        corrupted = corruption(ids, torch.ones_like(ids), SPEC, FIRST, seeded())
        for b in range(len(ids)):
            inputs, targets = slowly(ids[b].tolist(), corrupted.cut[b].tolist())
            assert corrupted.input_ids[b, : len(inputs)].tolist() == inputs and inputs[-1] == SEP
            assert corrupted.labels[b, : len(targets)].tolist() == targets
