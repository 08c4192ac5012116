"""Learning rate, batch and length that follow from encoder and data."""

import math

import pytest

from ssl_lab.cli.defaults.finetuning import TuningFacts, batch_size, num_epochs, rate_of
from ssl_lab.cli.learning_rate import best_rate, rates_around, steps_of_trial


def rate(**facts):
    usual = {"modality": "text", "title": "bert", "width": 128, "published": False, "adapters": False, "frozen": False}
    (choice,) = rate_of(TuningFacts(**{**usual, **facts}))
    return float(choice.override.removeprefix("optim.lr="))


def test_the_rate_falls_with_the_size_of_a_text_encoder_and_with_published_weights():
    assert rate(width=128) == 1e-3 and rate(width=256) == 5e-4
    assert rate(width=768) == rate(width=768, published=True) == 5e-5
    assert rate(width=1024, published=True) == 2e-5
    assert rate(width=256, published=True) == 1e-4
    assert rate(modality="image", width=128) == 1e-3 and rate(modality="image", published=True) == 1e-4


def test_adapters_and_heads_alone_take_higher_rates():
    assert rate(width=768, adapters=True) == 5e-4
    assert rate(adapters=True) == 2e-3, "ten times would be more than small encoders bear"
    assert rate(width=768, frozen=True) == 1e-3


def test_other_modalities_keep_their_rate():
    facts = TuningFacts(modality="wave", title="net", width=8, published=False, adapters=False, frozen=True)
    assert list(rate_of(facts)) == []


@pytest.mark.parametrize("num_samples", [1, 10, 100, 900, 1000, 5000, 20_000, 1_000_000])
def test_each_training_has_steps_and_few_have_too_many(num_samples):
    batch = batch_size(num_samples)
    epochs = num_epochs(num_samples, batch)
    assert 1 <= batch <= num_samples and 1 <= epochs <= 20
    steps = epochs * (num_samples // batch)
    assert steps >= 20 and (epochs == 1 or steps <= 900)
    assert num_epochs(num_samples + 1000, batch) <= epochs


def test_rates_of_a_search_lie_around_the_usual_one_and_the_best_score_wins():
    rates = rates_around(5e-4)
    assert rates == [1.7e-4, 5e-4, 1.5e-3, 4.5e-3]
    assert best_rate({1e-4: 0.5, 1e-3: 0.8, 1e-2: math.nan}, 1e-4) == 1e-3
    assert best_rate(dict.fromkeys(rates, 0.5), 5e-4) == 5e-4, "of equal ones the usual one"
    with pytest.raises(ValueError, match="no trial with 0.001 has a finite score"):
        best_rate({1e-3: math.nan}, 1e-3)


@pytest.mark.parametrize(("whole", "trial"), [(5, 5), (40, 20), (400, 100), (10_000, 200)])
def test_a_trial_is_a_part_of_the_training(whole, trial):
    assert steps_of_trial(whole) == trial
