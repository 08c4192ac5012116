import json
import math

import pytest

from ssl_lab.evaluation.likelihood.metrics import MASKED_PREDICTION_METRICS
from ssl_lab.evaluation.probes.metrics import FEW_LABEL_METRICS, KNN_METRICS, LINEAR_METRICS
from ssl_lab.evaluation.retrieval.metrics import RETRIEVAL_METRICS
from ssl_lab.metrics import descriptions
from ssl_lab.runs.read import Curve
from ssl_lab.tasks.metrics import CLASSES_METRICS
from ssl_lab.verdict import Verdict, compared, judged, stored, without_remedy

RAW, RANDOM, OWN = "raw pixels", "random encoder", "SimCLR encoder"


def record(declared, own, raw=None, random=None, *, scored=1000, **more):
    """A record of one protocol with its baselines."""
    rows = {**({RAW: raw} if raw else {}), **({RANDOM: random} if random else {}), OWN: own}
    return {
        "protocol": "KNN",
        "settings": {},
        "split": "test",
        "data": {"title": "Noise", "scored": f"{scored} abc"},
        "weights": "w",
        "described": descriptions(declared, own),
        "baselines": {RAW: "input", RANDOM: "encoder"},
        "metrics": rows,
        **more,
    }


def line(*records, **more):
    return str(Verdict(findings=judged({"measured": list(records)}, **more)))


def knn(own, raw=None, random=None, **more):
    return record(KNN_METRICS, *({"knn/top1": x} if x is not None else None for x in (own, raw, random)), **more)


def linear(own, raw=None, random=None, **more):
    return record(LINEAR_METRICS, *({"linear/top1": x} if x is not None else None for x in (own, raw, random)), **more)


def test_nothing_is_said_where_all_is_well():
    assert line(knn(0.9, 0.8, 0.7), linear(0.95, 0.9, 0.8)) == ""
    assert not Verdict()
    assert line() == ""


def test_features_below_raw_input_in_all_metrics_are_named_with_both_figures():
    assert line(knn(0.45, 0.6, 0.3), linear(0.5, 0.61, 0.4)) == (
        "Poor result: kNN 45.0 % and linear probe 50.0 % are below raw pixels (60.0 %, 61.0 %)."
    )


def test_a_metric_clearly_below_another_row_is_named_although_a_second_one_gains():
    assert line(knn(0.45, 0.6, 0.3), linear(0.65, 0.61, 0.4)) == (
        "Mixed result: kNN 45.0 % is below raw pixels (60.0 %), while linear probe 65.0 % is better than its 61.0 %."
    )
    assert line(knn(0.595, 0.6, 0.3), linear(0.65, 0.61, 0.4)) == "", "a small loss beside a gain"


def test_below_the_random_encoder_comes_first_and_one_subject_is_named_once():
    assert line(knn(0.45, 0.6, 0.55)) == (
        "Poor result: kNN 45.0 % is below the random encoder (55.0 %) and below raw pixels (60.0 %)."
    )


def test_a_difference_within_a_standard_error_is_no_better_and_not_below():
    assert "is no better than the random encoder (55.5 %)" in line(knn(0.55, None, 0.555, scored=1000))
    assert "is below the random encoder" in line(knn(0.55, None, 0.555, scored=100_000))
    assert "is no better than" in line(knn(0.556, None, 0.555, scored=1000)), "nor is what it gained by chance a gain"
    assert line(knn(0.58, None, 0.555, scored=1000)) == ""
    assert line(knn(0.985, 0.986, 0.8)) == "", "as good as raw input, where there may be nothing to gain"


def test_draws_of_few_labels_count_only_where_nothing_else_is_measured():
    few = [
        {"few_label/top1_n1": own, "few_label/top1_n1_std": 0.05, "few_label/top1_n1_x": 1.0} for own in (0.2, 0.4, 0.1)
    ]
    one = record(FEW_LABEL_METRICS, *few)
    assert "1 label per class 20.0 % is below raw pixels (40.0 %)" in line(one)
    own, raw = {"knn/top1": 0.9, **few[0]}, {"knn/top1": 0.8, **few[1]}
    assert line(record({**KNN_METRICS, **FEW_LABEL_METRICS}, own, raw)) == ""
    better = record(FEW_LABEL_METRICS, *reversed(few[:2]))
    assert "kNN 45.0 % is below raw pixels" in line(knn(0.45, 0.6), better), "measured by another protocol"


def test_accuracy_below_the_most_frequent_class_is_told():
    assert line(knn(0.62, 0.5, 0.5, frequency=0.7)) == (
        "Poor result: kNN 62.0 % is below guessing the most frequent class (70.0 %)."
    )
    assert line(knn(0.72, 0.5, 0.5, frequency=0.6)) == ""


MASKED = {
    "masked/perplexity": 300.0,
    "masked/unigram_perplexity": 320.0,
    "masked/accuracy": 0.05,
    "masked/unigram_accuracy": 0.05,
}


def test_a_language_model_that_always_guesses_one_word_is_told():
    assert line(record(MASKED_PREDICTION_METRICS, MASKED)) == (
        "Poor result: hidden words guessed right 5.0 % is no better than word frequencies alone (unigram) (5.0 %)."
    )
    assert line(record(MASKED_PREDICTION_METRICS, {**MASKED, "masked/accuracy": 0.2})) == ""
    worse = line(record(MASKED_PREDICTION_METRICS, {**MASKED, "masked/accuracy": 0.2, "masked/perplexity": 400.0}))
    assert "masked perplexity 400.0 is worse than word frequencies alone (unigram) (320.0)" in worse


def test_retrieval_is_compared_with_chance():
    chance = {"retrieval/image_to_text_r1": 0.001, "retrieval/image_to_text_r1_chance": 0.001}
    assert "recall@1 0.1 % is no better than guessing (chance) (0.1 %)" in line(record(RETRIEVAL_METRICS, chance))
    assert line(record(RETRIEVAL_METRICS, {**chance, "retrieval/image_to_text_r1": 0.2})) == ""


def test_collapse_comes_before_all_and_an_unended_training_last():
    falling = {"train/loss": Curve(steps=tuple(range(100)), values=tuple(10 - 0.05 * k for k in range(100)))}
    found = judged({"measured": [knn(0.45, 0.6)]}, curves=falling, collapse="since step 7 all are alike")
    assert [finding.kind for finding in found] == ["collapsed", "input", "unconverged"]
    words = str(Verdict(findings=found, remedy="Do this."))
    assert words.startswith(
        "Poor result: the features have collapsed: since step 7 all are alike; kNN 45.0 % is below raw"
    )
    assert words.endswith("; the loss was still falling at the end (6.525 to 5.525 over the last fifth). Do this.")
    assert str(Verdict(findings=found[2:])).startswith("Not converged: the loss was")


def test_data_of_a_protocol_of_its_own_and_broken_records_say_nothing():
    assert line(knn(0.1, 0.9, settings={"on_data": "other"})) == ""
    for broken in ([None], [{"metrics": []}], "x", [{"metrics": {}}], [{"metrics": {"a": 1}}]):
        assert judged({"measured": broken}) == []
    assert line(knn(math.nan, 0.9)) == ""
    assert line({**knn(0.1, 0.9), "described": None}) == "", "a metric without a description has no direction"


def test_a_verdict_is_kept_and_read_from_files_that_anybody_wrote():
    verdict = Verdict(findings=judged({"measured": [knn(0.45, 0.6)]}), remedy="Train longer.")
    kept = json.loads(json.dumps(verdict.to_json()))
    assert str(stored({"status": "finished", "verdict": kept}, None)) == str(verdict)
    assert str(without_remedy(verdict)) == str(verdict).removesuffix(" Train longer.")
    assert not stored({"status": "running", "verdict": kept}, None)
    older = stored({"status": "finished"}, {"measured": [knn(0.45, 0.6)]})
    assert older.findings == verdict.findings and not older.remedy
    for broken in ({"findings": 3}, {"findings": [1, {"kind": "x"}, {"kind": "input", "subject": 1}], "remedy": []}):
        assert not stored({"status": "finished", "verdict": broken}, None)


@pytest.mark.parametrize(("own", "words"), [(0.5, "below random weights (60.0 %)"), (0.7, "")])
def test_rows_of_any_table_are_compared(own, words):
    found = compared(
        {"finetune/accuracy": own},
        {"random weights": ("start", {"finetune/accuracy": 0.6})},
        CLASSES_METRICS,
        num_scored=400,
        frequency=0.2,
    )
    assert [finding.rest for finding in found] == ([words] if words else [])
