import math
import random

from ssl_lab.evaluation.likelihood.metrics import MASKED_PREDICTION_METRICS
from ssl_lab.evaluation.probes.metrics import KNN_METRICS
from ssl_lab.improving import improvement
from ssl_lab.runs.read import Curve

METRICS = {**KNN_METRICS, **MASKED_PREDICTION_METRICS}


def of_loss(fn, *, num=100, noise=0.0):
    draw = random.Random(0)
    values = tuple(fn(k / num) + draw.gauss(0, noise) for k in range(num))
    return improvement({"train/loss": Curve(steps=tuple(10 * k + 9 for k in range(num)), values=values)}, METRICS)


def of_metric(name, values, **more):
    steps = tuple(10 * (k + 1) for k in range(len(values)))
    falling = Curve(steps=tuple(range(100)), values=tuple(-float(k) for k in range(100)))
    return improvement({f"eval/{name}": Curve(steps=steps, values=values), "train/loss": falling}, METRICS, **more)


def test_a_loss_that_falls_steadily_has_not_converged():
    subject, words = of_loss(lambda t: 8 - 4 * t)
    assert subject == "the loss"
    assert words == "still falling at the end (5.22 to 4.42 over the last fifth)"
    assert of_loss(lambda t: 8 - 4 * t, noise=0.5)


def test_a_loss_that_has_levelled_off_or_rises_says_nothing():
    assert of_loss(lambda t: 2 + 6 * math.exp(-8 * t)) is None
    assert of_loss(lambda t: 5.0, noise=0.3) is None, "noise"
    assert of_loss(lambda t: 8 - 0.2 * t, noise=1.0) is None, "a fall within noise"
    assert of_loss(lambda t: 2 + t) is None, "losses of players may rise"
    assert of_loss(lambda t: 8 - 4 * t, num=10) is None, "too few rows"
    assert of_loss(lambda t: math.nan) is None


def test_the_validation_metric_decides_where_it_was_measured_often_enough():
    assert of_metric("knn/top1", (0.2, 0.3, 0.4, 0.5)) == (
        "kNN on the validation split",
        "still improving at the end (40.0 to 50.0 % over the last quarter)",
    )
    assert of_metric("knn/top1", (0.2, 0.45, 0.49, 0.5)) is None, "though the loss still falls"
    assert of_metric("knn/top1", (0.2, 0.6, 0.3, 0.5)) is None, "not its best value"
    assert of_metric("knn/top1", (0.3, 0.4, 0.5))[0] == "the loss", "too few evaluations"
    assert "300.0 to 200.0 over" in of_metric("masked/perplexity", (500.0, 400.0, 300.0, 200.0))[1]
    assert of_metric("masked/unigram_perplexity", (5.0, 4.0, 3.0, 2.0))[0] == "the loss", "no yardstick"


def test_the_objective_is_the_metric_that_matters():
    steps = (1, 2, 3, 4)
    curves = {
        "eval/knn/top1": Curve(steps=steps, values=(0.5,) * 4),
        "eval/masked/accuracy": Curve(steps=steps, values=(0.1, 0.2, 0.3, 0.4)),
    }
    assert improvement(curves, METRICS) is None
    assert improvement(curves, METRICS, "eval/masked/accuracy")[0].startswith("hidden words guessed right on")
