import pytest
import torch

from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.masking import TokenMasking, eligible_tokens, fixed_draws, fixed_masks

SPEC = TextSpec(
    length=32, vocab_size=200, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4, 150)
)  # special ids need not come first
CLS, SEP = 2, 3


def sentences(batch=512, length=32, seed=0):
    """[CLS] words [SEP] padding, of many lengths, with a special token in between."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 150, (batch, length), generator=generator)
    ids[:, 5] = 150
    ends = torch.randint(8, length, (batch, 1), generator=generator)
    positions = torch.arange(length)
    ids = torch.where(positions == ends, SEP, torch.where(positions > ends, SPEC.pad_id, ids))
    ids[:, 0] = CLS
    return ids, (positions <= ends).long()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labels_are_the_originals_where_chosen():
    ids, mask = sentences()
    corrupted, labels = TokenMasking()(ids, mask, SPEC, seeded())
    chosen = labels != -100
    assert corrupted.dtype == labels.dtype == torch.int64
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(corrupted[~chosen], ids[~chosen])


@pytest.mark.parametrize("mask_prob", [0.15, 0.4])
def test_shares(mask_prob):
    ids, mask = sentences(batch=4000)
    corrupted, labels = TokenMasking(mask_prob=mask_prob)(ids, mask, SPEC, seeded())
    chosen = labels != -100
    # One token is forced in rows without any: of n tokens, (1 - p)^n rows gain one.
    num_eligible = eligible_tokens(ids, mask, SPEC).sum(1)
    expected = (num_eligible * mask_prob + (1 - mask_prob) ** num_eligible).sum()
    assert chosen.sum().item() == pytest.approx(expected.item(), rel=0.03)
    assert (corrupted[chosen] == SPEC.mask_id).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (corrupted[chosen] == ids[chosen]).float().mean().item() == pytest.approx(0.1 + 0.1 / 194, abs=0.015)


def test_specials_and_padding_are_never_chosen():
    ids, mask = sentences()
    _, labels = TokenMasking(mask_prob=0.9)(ids, mask, SPEC, seeded())
    special = torch.isin(ids, torch.tensor(SPEC.special_ids))
    assert not (labels != -100)[special | (mask == 0)].any()


def test_tokens_outside_the_attention_mask_are_never_chosen():
    ids, mask = sentences()
    mask[:, 10:] = 0
    _, labels = TokenMasking(mask_prob=0.9)(ids, mask, SPEC, seeded())
    assert (labels[:, 10:] == -100).all()


def test_random_tokens_are_all_ordinary_words_and_no_others():
    ids, mask = sentences(batch=4000)
    masking = TokenMasking(mask_prob=0.5, mask_token_share=0.0, random_token_share=1.0)
    corrupted, labels = masking(ids, mask, SPEC, seeded())
    drawn, counts = corrupted[labels != -100].unique(return_counts=True)
    assert set(drawn.tolist()) == set(range(200)) - set(SPEC.special_ids)
    assert counts.min() > 0.5 * counts.float().mean()


def test_every_row_with_words_has_a_masked_one():
    ids, mask = sentences()
    chosen = TokenMasking(mask_prob=0.001)(ids, mask, SPEC, seeded())[1] != -100
    assert (chosen.sum(1) == 1).float().mean() > 0.9
    assert chosen.any(1).all()
    first_word = chosen[:, 1].float().mean().item()  # forced choices are spread over the row
    assert 0.02 < first_word < 0.2


def test_rows_without_words_stay_as_they_are():
    ids, mask = sentences(batch=3)
    ids[1, 1:] = SEP
    corrupted, labels = TokenMasking()(ids, mask, SPEC, seeded())
    assert torch.equal(corrupted[1], ids[1])
    assert (labels[1] == -100).all() and (labels[[0, 2]] != -100).any(1).all()


def test_a_generator_decides_and_the_global_stream_is_left_alone():
    ids, mask = sentences()
    before = torch.random.get_rng_state()
    first = TokenMasking()(ids, mask, SPEC, seeded(1))
    assert torch.equal(torch.random.get_rng_state(), before)
    again, other = (TokenMasking()(ids, mask, SPEC, seeded(seed)) for seed in (1, 2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])


def test_fixed_masks_depend_on_the_sample_alone():
    ids, mask = sentences(batch=60)
    index = torch.arange(1000, 1060)
    whole = fixed_masks(ids, mask, SPEC, index=index, seed=3)
    order = torch.randperm(60, generator=seeded())
    for size in (1, 7, 60):
        for rows in order.split(size):
            part = fixed_masks(ids[rows], mask[rows], SPEC, index=index[rows], seed=3)
            assert all(torch.equal(a, b[rows]) for a, b in zip(part, whole, strict=True))
    padded = fixed_masks(
        torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5)), SPEC, index=index, seed=3
    )
    assert all(torch.equal(a[:, :32], b) for a, b in zip(padded, whole, strict=True))


def test_fixed_masks_have_the_shares_and_no_pattern():
    ids = torch.full((8000, 30), 7)
    mask = torch.ones_like(ids)
    index = torch.arange(8000)
    corrupted, labels = fixed_masks(ids, mask, SPEC, index=index, seed=0)
    chosen = labels != -100
    share = 0.15 + 0.85**30 / 30
    assert chosen.float().mean().item() == pytest.approx(share, abs=0.003)
    assert (corrupted[chosen] == SPEC.mask_id).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert chosen.float().mean(0).sub(share).abs().max() < 0.02
    joint = torch.corrcoef(torch.cat([chosen[:-1].T, chosen[1:].T]).float())  # positions, and the next sample's
    assert joint.fill_diagonal_(0).abs().max() < 0.08
    other = fixed_masks(ids, mask, SPEC, index=index, seed=1)[1] != -100
    assert (chosen & other).float().mean().item() == pytest.approx(share**2, abs=0.005)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_prob": 0.0},
        {"mask_prob": 1.0},
        {"mask_token_share": -0.1},
        {"mask_token_share": 0.8, "random_token_share": 0.3},
    ],
)
def test_refuses_shares_without_sense(settings):
    with pytest.raises(ValueError, match="Masking needs"):
        TokenMasking(**settings)


def test_fixed_draws_never_repeat_whatever_the_length_index_and_seed():
    length = 3 * 65_537
    draws = fixed_draws(torch.tensor([0, 1, 2, 1_000_003]), length, seed=0, num_draws=1)[0]
    other = fixed_draws(torch.tensor([0]), length, seed=1, num_draws=1)[0]
    parts = [part[:65_000] for row in [*draws, *other] for part in row.split(65_537)]
    for number, part in enumerate(parts):
        assert part.mean() == pytest.approx(0.5, abs=0.01)
        for before in parts[:number]:
            assert (part == before).float().mean() < 0.001
    correlations = torch.corrcoef(torch.stack(parts)) - torch.eye(len(parts))
    assert correlations.abs().max() < 0.03


def test_fixed_draws_are_those_that_figures_were_measured_with():
    draws = fixed_draws(torch.tensor([0, 7]), 3, seed=5, num_draws=2)
    expected = [
        [[0.9601584, 0.8185314, 0.6082569], [0.1484889, 0.7153676, 0.0407887]],
        [[0.3729548, 0.1286430, 0.6259460], [0.7314260, 0.5647275, 0.7300084]],
    ]
    torch.testing.assert_close(draws, torch.tensor(expected), rtol=0, atol=1e-6)
