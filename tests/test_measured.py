"""Results are joined by what was measured and how, and never stand in one column if that differs."""

import pytest

from ssl_lab.measured import current, merged, of_input, records_of, rows_of, shown_names
from ssl_lab.report.vocabulary import describe

DATA = {"title": "Digits", "modality": "image", "shape": [1, 8, 8], "train": "10 aa", "scored": "5 bb"}


def record(value, protocol="KNN", metric="knn/top1", *, split="test", weights="w", data=DATA, **settings):
    metrics = {"raw pixels": {metric: 0.5}, "own": {metric: value}}
    facts = {"protocol": protocol, "settings": settings, "split": split, "data": data, "weights": weights}
    return {**facts, "metrics": metrics}


def own(evaluation):
    return evaluation["rows"][-1]["metrics"]


def test_a_new_result_replaces_the_very_same_measurement_alone():
    linear, near = record(0.8, "LinearProbe", "linear/top1", max_iter=100), record(0.7, num_neighbors=20)
    evaluation = merged([linear, near], [record(0.75, num_neighbors=20)])
    assert own(evaluation) == {"linear/top1": 0.8, "knn/top1": 0.75} and len(evaluation["measured"]) == 2
    evaluation = merged(evaluation["measured"], [record(0.6, num_neighbors=1)])
    assert own(evaluation) == {
        "linear/top1": 0.8,
        "knn/top1[num_neighbors=20]": 0.75,
        "knn/top1[num_neighbors=1]": 0.6,
    }
    assert [row["name"] for row in evaluation["rows"]] == ["raw pixels", "own"]


def test_what_each_row_is_stays_known_when_some_are_measured_again():
    first, second = ({**record(0.7), "baselines": kinds} for kinds in ({"spectra": "input"}, {}))
    first["metrics"] = {"spectra": {"knn/top1": 0.5}, **first["metrics"]}
    evaluation = merged([first], [second])
    assert evaluation["measured"][0]["baselines"] == {"spectra": "input"}
    assert of_input(evaluation["measured"]) == {"spectra", "raw pixels"}, "the second one's name is an old one"
    assert of_input([{**record(0.7), "baselines": {"raw pixels": "encoder"}}]) == set()


@pytest.mark.parametrize(
    "other",
    [
        {"split": "val"},
        {"data": {**DATA, "shape": [1, 16, 16]}},
        {"data": {**DATA, "train": "4 cc"}},
        {"data": {**DATA, "scored": "5 dd"}},
        {"data": {**DATA, "title": "Other"}},
        {"seed": 1},
    ],
    ids=str,
)
def test_whatever_differs_makes_two_columns_that_name_it(other):
    (first, second) = shown_names([record(0.1, seed=0), record(0.2, **{"seed": 0, **other})])
    assert first["knn/top1"] != second["knn/top1"]
    heads = [describe(names["knn/top1"], {}).column for names in (first, second)]
    assert len(set(heads)) == 2 and all(head.startswith("kNN, ") for head in heads)


def test_results_of_later_weights_stand_alone_and_nothing_is_lost():
    evaluation = merged([record(0.8, "LinearProbe", "linear/top1", weights="before")], [record(0.7, num_neighbors=20)])
    assert own(evaluation) == {"knn/top1": 0.7}
    assert [found["protocol"] for found in evaluation["measured"]] == ["LinearProbe", "KNN"]
    assert [found["protocol"] for found in current(evaluation)] == ["KNN"]


def test_names_of_deviations_and_floors_end_as_before():
    few = [
        record(0.1, "FewLabelProbe", f"few_label/top1_n1{end}", seed=seed) for seed in (0, 1) for end in ("", "_std")
    ]
    names = {name for names in shown_names(few) for name in names.values()}
    assert "few_label/top1_n1[seed=1]" in names and "few_label/top1_n1[seed=1]_std" in names


def test_files_without_records_are_read_by_the_run_s_settings():
    rows = [
        {"name": "raw pixels", "metrics": {"knn/top1": 0.5}},
        {"name": "own", "metrics": {"knn/top1": 0.6, "x/y": 1.0}},
    ]
    old = {"split": "test", "data": "Digits", "rows": rows}
    nodes = {"near": {"_target_": "ssl_lab.evaluation.probes.knn.KNN", "num_neighbors": [20], "temperature": 0.07}}
    records = records_of(old, nodes, weights="w")
    assert rows_of(records) == rows
    evaluation = merged(records, [record(0.7, num_neighbors=1, temperature=0.07, data={"title": "Digits"})])
    assert own(evaluation) == {"knn/top1[num_neighbors=20]": 0.6, "x/y": 1.0, "knn/top1[num_neighbors=1]": 0.7}


def test_ids_of_a_text_depend_on_the_tokenizer_and_make_no_column():
    data = [{**DATA, "as_recorded": False, "scored": scored} for scored in ("5 bb", "6 cc")]
    names = shown_names([record(0.1, metric="language_modelling/bits_per_byte", data=facts) for facts in data])
    assert names[0] == names[1] == {"language_modelling/bits_per_byte": "language_modelling/bits_per_byte"}


def test_nothing_measured_is_an_evaluation_without_rows():
    assert merged([], [])["rows"] == []
