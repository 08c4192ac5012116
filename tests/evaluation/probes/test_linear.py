from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from evaluation.clusters import clusters, noise
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_lab.evaluation.probes.linear import (
    FewLabelProbe,
    LinearProbe,
    draw_labels,
    fit_few,
    fit_logistic,
    logits,
    loss_and_gradient,
    standardise,
)


def reference(x, y, *, l2):
    return LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=10_000).fit(x.double(), y)


@pytest.mark.parametrize("l2", [1e-1, 1e-2, 1e-4])
def test_the_solution_is_that_of_scikit_learn(l2):
    features = clusters(spread=0.6, num_train=300)
    weights = fit_logistic(features.train_x, features.train_y, num_classes=4, l2=l2)
    expected = reference(features.train_x, features.train_y, l2=l2)
    torch.testing.assert_close(weights[:, :-1].double(), torch.from_numpy(expected.coef_), atol=2e-3, rtol=2e-3)
    probabilities = logits(weights, features.test_x).softmax(1).double()
    torch.testing.assert_close(
        probabilities, torch.from_numpy(expected.predict_proba(features.test_x.double())), atol=1e-3, rtol=0
    )


def test_the_gradient_is_that_of_autograd():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=generator)
    weights = torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    expected = F.cross_entropy(logits(weights, x), y) + 0.05 * weights[:, :-1].square().sum()
    expected.backward()
    loss, gradient = loss_and_gradient(weights.detach(), x, y, l2=0.1)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, weights.grad)


def test_few_samples_are_fitted_as_scikit_learn_fits_each_draw():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 20, 64, generator=generator)
    y = torch.stack([torch.arange(20)[torch.randperm(20, generator=generator)] % 4 for _ in range(6)])
    for draw, weights in enumerate(fit_few(x, y, num_classes=4, l2=1e-2)):
        expected = reference(x[draw], y[draw], l2=1e-2)
        torch.testing.assert_close(weights[:, :-1].double(), torch.from_numpy(expected.coef_), atol=1e-3, rtol=0)
        probabilities = logits(weights, x[draw]).softmax(1).double()
        torch.testing.assert_close(
            probabilities, torch.from_numpy(expected.predict_proba(x[draw].double())), atol=1e-3, rtol=0
        )


def test_two_classes_have_a_vector_of_weights_each():
    features = clusters(spread=0.6, num_classes=2)
    weights = fit_logistic(features.train_x, features.train_y, num_classes=2, l2=1e-2)
    expected = torch.from_numpy(reference(features.train_x, features.train_y, l2=0.5e-2).coef_)
    torch.testing.assert_close((weights[1:, :-1] - weights[:1, :-1]).double(), expected, atol=2e-3, rtol=2e-3)


def test_few_labels_of_many_classes_are_fitted_in_parts(monkeypatch):
    features = clusters(spread=0.3)
    whole = FewLabelProbe(labels_per_class=(2, 5), num_draws=5).score(features)
    monkeypatch.setattr("ssl_lab.evaluation.probes.linear._WEIGHTS_AT_ONCE", 100)
    assert FewLabelProbe(labels_per_class=(2, 5), num_draws=5).score(features) == pytest.approx(whole, abs=0.005)


def test_classes_without_samples_change_nothing():
    features = clusters(spread=0.3)
    more = replace(features, num_classes=features.num_classes + 20)
    assert FewLabelProbe(num_draws=3).score(more) == FewLabelProbe(num_draws=3).score(features)


def test_start_changes_the_way_and_not_the_end():
    features = clusters(spread=0.6)
    arguments = {"num_classes": 4, "l2": 1e-2}
    cold = fit_logistic(features.train_x, features.train_y, **arguments)
    start = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    kept = start.clone()
    warm = fit_logistic(features.train_x, features.train_y, start=start, **arguments)
    torch.testing.assert_close(warm[:, :-1], cold[:, :-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(start, kept)


def test_standardise_uses_the_first_features_alone():
    features = clusters(spread=0.6)
    train, test = standardise(features.train_x, features.test_x)
    scaler = StandardScaler().fit(features.train_x)
    torch.testing.assert_close(train, torch.from_numpy(scaler.transform(features.train_x)), check_dtype=False)
    torch.testing.assert_close(test, torch.from_numpy(scaler.transform(features.test_x)), check_dtype=False)


def test_standardise_keeps_features_that_are_small_beside_others():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-9, 1.0, 1e25])
    expected = StandardScaler().fit_transform(x.double())
    torch.testing.assert_close(standardise(x)[0], torch.from_numpy(expected), check_dtype=False, rtol=1e-4, atol=1e-5)


def test_standardise_sets_constant_features_to_zero():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 7.3
    train, other = standardise(x, torch.full((2, 3), 100.0))
    assert train[:, 1].abs().max() == 0
    assert other[:, 1].abs().max() == 0
    assert standardise(torch.ones(4, 2))[0].abs().max() == 0


def test_a_fixed_penalty_gives_the_accuracy_of_scikit_learn():
    features = clusters(spread=0.6, num_test=1000)
    train, test = standardise(features.train_x, features.test_x)
    expected = reference(train, features.train_y, l2=1e-2).score(test.double(), features.test_y)
    assert LinearProbe(penalties=(1e-2,)).score(features)["linear/top1"] == pytest.approx(expected, abs=0.002)


def test_separate_clusters_score_one_and_noise_scores_chance():
    assert LinearProbe().score(clusters(spread=0.02)) == {
        "linear/top1": 1.0,
        "linear/macro_f1": 1.0,
        "linear/recall": 1.0,
    }
    assert LinearProbe().score(noise(num_test=2000))["linear/top1"] == pytest.approx(0.25, abs=0.05)


def test_the_penalty_is_chosen_to_fit_the_features():
    strong, weak = 1.0, 1e-6
    for features, best in ((noise(dim=80), strong), (clusters(spread=0.02), weak)):
        chosen = LinearProbe(penalties=(weak, strong)).predict(features)
        torch.testing.assert_close(chosen, LinearProbe(penalties=(best,)).predict(features))
    assert not torch.equal(
        LinearProbe(penalties=(strong,)).predict(noise(dim=80)), LinearProbe(penalties=(weak,)).predict(noise(dim=80))
    )


def test_the_scored_split_decides_nothing():
    features = clusters(spread=0.6)
    half = replace(features, test_x=features.test_x[::2], test_y=torch.zeros_like(features.test_y[::2]))
    torch.testing.assert_close(LinearProbe().predict(features)[::2], LinearProbe().predict(half))


def test_the_scale_and_offset_of_features_do_not_matter():
    features = clusters(spread=0.6)
    other = replace(features, train_x=1e4 * features.train_x + 50, test_x=1e4 * features.test_x + 50)
    assert LinearProbe().score(other) == pytest.approx(LinearProbe().score(features), abs=0.01)


def test_labels_that_repeat_with_a_period_do_not_hide_a_class_from_the_choice():
    features = clusters(spread=0.02, num_classes=5)
    order = torch.cat([(features.train_y == k).nonzero()[:20] for k in range(5)], dim=1).flatten()
    periodic = replace(features, train_x=features.train_x[order], train_y=features.train_y[order])
    assert periodic.train_y[:5].tolist() == [0, 1, 2, 3, 4]
    assert LinearProbe().score(periodic)["linear/top1"] == 1.0


def test_probes_repeat_themselves_and_leave_the_random_stream_alone():
    features = clusters(spread=0.6)
    state = torch.random.get_rng_state()
    for probe in (LinearProbe(), FewLabelProbe(num_draws=3)):
        assert probe.score(features) == probe.score(features)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scoring_works_without_gradients_around_it():
    features = clusters(spread=0.02)
    with torch.no_grad():
        assert LinearProbe().score(features)["linear/top1"] == 1.0


def test_draws_hold_n_of_each_class_and_depend_on_labels_and_seed_alone():
    labels = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(0))
    chosen = draw_labels(labels, 7, seed=3)
    assert len(chosen.unique()) == 35
    assert torch.bincount(labels[chosen]).tolist() == [7] * 5
    assert torch.equal(chosen, draw_labels(labels, 7, seed=3))
    assert not torch.equal(chosen, draw_labels(labels, 7, seed=4))
    assert set(draw_labels(labels, 2, seed=3).tolist()) < set(chosen.tolist())


def test_a_class_with_few_samples_gives_all_it_has():
    labels = torch.tensor([0] * 20 + [1] * 3)
    assert torch.bincount(labels[draw_labels(labels, 10, seed=0)]).tolist() == [10, 3]


def test_draws_reach_every_sample():
    labels = torch.arange(20) % 2
    seen = torch.cat([draw_labels(labels, 1, seed=seed) for seed in range(300)])
    assert torch.bincount(seen, minlength=20).min() > 10  # 30 expected


def test_few_labels_equal_a_slow_loop():
    features = clusters(spread=0.3)
    train, test = standardise(features.train_x, features.test_x)
    expected = []
    for draw in range(4):
        chosen = draw_labels(features.train_y, 5, seed=20_000 + draw)
        weights = fit_logistic(train[chosen], features.train_y[chosen], num_classes=features.num_classes, l2=1e-2)
        expected.append(float((logits(weights, test).argmax(1) == features.test_y).double().mean()))
    scores = FewLabelProbe(labels_per_class=(5,), num_draws=4, seed=2).score(features)
    assert scores["few_label/top1_n5"] == pytest.approx(sum(expected) / 4, abs=0.003)
    assert scores["few_label/top1_n5_std"] == pytest.approx(float(torch.tensor(expected).std()), abs=0.003)


def test_few_labels_of_separate_clusters_and_of_noise():
    scores = FewLabelProbe().score(clusters(spread=0.02))
    assert scores == {f"few_label/top1_n{n}{end}": float(end == "") for n in (1, 5, 10) for end in ("", "_std")}
    assert FewLabelProbe().score(noise(num_test=2000))["few_label/top1_n10"] == pytest.approx(0.25, abs=0.05)


def test_more_labels_help():
    scores = FewLabelProbe(labels_per_class=(1, 10, 1000), num_draws=5).score(clusters(spread=0.4))
    assert scores["few_label/top1_n1"] < scores["few_label/top1_n10"] < scores["few_label/top1_n1000"]
    assert scores["few_label/top1_n1000_std"] == 0  # each draw holds everything


def test_one_draw_has_no_deviation():
    assert FewLabelProbe(labels_per_class=(1,), num_draws=1).score(clusters(spread=0.4))["few_label/top1_n1_std"] == 0


@pytest.mark.parametrize(
    "settings", [{"penalties": ()}, {"penalties": (0.1, -1.0)}, {"penalties": (float("nan"),)}, {"max_iter": 0}]
)
def test_impossible_penalties_are_refused(settings):
    with pytest.raises(ValueError, match="penalty or more"):
        LinearProbe(**settings)


@pytest.mark.parametrize(
    "settings", [{"labels_per_class": ()}, {"labels_per_class": (0,)}, {"num_draws": 0}, {"penalty": -0.1}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="at least one label per class"):
        FewLabelProbe(**settings)
