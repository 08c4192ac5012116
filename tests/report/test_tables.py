import math
from io import StringIO

from report.fake_runs import mlm_evaluation, simclr_evaluation, vae_evaluation
from rich.console import Console

from ssl_lab.report.tables import class_shares, markdown_table, results_table, tables
from ssl_lab.report.vocabulary import describe


def by_key(evaluation):
    return {table.key: table for table in tables(evaluation)}


def printed(evaluation, width=100):
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(results_table(evaluation))
    return console.file.getvalue()


def test_feature_table_shows_percent_with_deviation_and_marks_the_best():
    table = by_key(simclr_evaluation())["features"]
    assert table.columns == (
        "kNN ↑",
        "linear probe ↑",
        "1 label per class ↑",
        "5 labels per class ↑",
        "10 labels per class ↑",
    )
    assert [row.name for row in table.rows] == ["raw pixels", "random encoder", "SimCLR encoder"]
    assert [str(cell) for cell in table.rows[2].cells] == ["97.8", "98.8", "85.1 ± 4.0", "95.7 ± 0.8", "96.9 ± 0.4"]
    assert all(cell.best for cell in table.rows[2].cells)
    assert not any(cell.best for row in table.rows[:2] for cell in row.cells)


def test_columns_are_in_the_order_of_the_vocabulary_whatever_the_order_of_the_file():
    metrics = {
        "few_label/top1_n10": 0.9,
        "few_label/top1_n5": 0.8,
        "linear/top1": 0.9,
        "knn/top1_k200": 0.7,
        "knn/top1": 1,
    }
    table = by_key({"rows": [{"name": "a", "metrics": metrics}]})["features"]
    assert [column.removesuffix(" ↑") for column in table.columns] == [
        "kNN",
        "kNN, k = 200",
        "linear probe",
        "5 labels per class",
        "10 labels per class",
    ]
    assert not any(cell.best for cell in table.rows[0].cells), "one row has nobody to beat"


def test_rows_that_look_alike_are_both_best():
    rows = [{"name": str(k), "metrics": {"knn/top1": value}} for k, value in enumerate((0.9701, 0.9704, 0.9))]
    assert [row.cells[0].best for row in by_key({"rows": rows})["features"].rows] == [True, True, False]


def test_secondary_scores_are_a_table_of_their_own_and_stay_out_of_the_terminal():
    assert "linear probe, macro F1 ↑" in by_key(simclr_evaluation())["other_scores"].columns
    assert "macro F1" not in markdown_table(simclr_evaluation())
    assert "macro F1" not in printed(simclr_evaluation())


def test_masked_prediction_stands_beside_its_unigram_baseline():
    table = by_key(mlm_evaluation())["masked"]
    assert table.columns[0] == "masked perplexity ↓"
    model, unigram = table.rows
    assert [str(cell) for cell in model.cells] == ["31.5", "41.2", "3.451"]
    assert [str(cell) for cell in unigram.cells] == ["402.1", "6.1", "–"]
    assert unigram.reference and not model.reference
    assert model.cells[0].best and not unigram.cells[0].best, "lower is better"


def test_a_model_worse_than_its_baseline_is_not_bold():
    metrics = {"elbo/bits_per_dim": 0.7, "elbo/baseline_bits_per_dim": 0.6}
    model, baseline = by_key({"rows": [{"name": "VAE", "metrics": metrics}]})["likelihood"].rows
    assert (model.cells[0].best, baseline.cells[0].best) == (False, True)


def test_distance_between_real_images_is_a_floor_and_not_a_winner():
    table = by_key(vae_evaluation())["samples"]
    assert table.columns[0] == "Fréchet distance, pixels, 2000 samples ↓"
    assert [row.name for row in table.rows] == ["VAE encoder", "real images (floor)"]
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_label_free_metrics_have_a_table_of_their_own_without_a_winner():
    metrics = {"rankme/rank": 47.31, "lidar/rank": 30.2, "alignment/loss": 0.1, "uniformity/loss": -2.5}
    other = {name: 2 * value for name, value in metrics.items()}
    table = by_key({"rows": [{"name": "a", "metrics": metrics}, {"name": "b", "metrics": other}]})["label_free"]
    assert table.columns == ("RankMe ↑", "LiDAR ↑", "alignment ↓", "uniformity ↓")
    assert [str(cell) for cell in table.rows[0].cells] == ["47.3", "30.2", "0.10", "-2.50"]
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_class_shares_are_in_the_order_of_classes():
    evaluation = {"rows": [{"name": "GAN", "metrics": {f"samples/class_share_{k}": k / 66 for k in range(11, -1, -1)}}]}
    (chart,) = class_shares(evaluation)
    assert (chart.name, chart.accuracy) == ("GAN", "–")
    assert list(chart.shares) == [str(k) for k in range(12)]
    assert tables(evaluation) == []


def test_missing_and_non_finite_values_are_shown_and_never_best():
    rows = [
        {"name": "a", "metrics": {"knn/top1": math.nan}},
        {"name": "b", "metrics": {"knn/top1": None}},
        {"name": "c", "metrics": {"knn/top1": 0.5}},
    ]
    table = by_key({"rows": rows})["features"]
    shown = {row.name: (row.cells[0].text, row.cells[0].best) for row in table.rows}
    assert shown == {"a": ("not finite", False), "c": ("50.0", True)}


def test_unknown_metrics_appear_under_their_own_name():
    table = by_key({"rows": [{"name": "a", "metrics": {"new/thing": 0.25, "new/thing_std": 0.5}}]})["other"]
    assert table.columns == ("new/thing",)
    assert str(table.rows[0].cells[0]) == "0.25 ± 0.5"


def test_markdown_is_a_table_with_bold_best_numbers():
    lines = markdown_table(simclr_evaluation()).splitlines()
    assert lines[0] == "**Accuracy of frozen features, %**"
    assert lines[2].startswith("|  | kNN ↑ | linear probe ↑ | 1 label per class ↑ |")
    assert lines[4] == "| raw pixels | 95.4 | 96.4 | 65.2 ± 4.0 | 85.3 ± 0.8 | 90.5 ± 0.4 |"
    assert lines[6].startswith("| SimCLR encoder | **97.8** | **98.8** | **85.1** ± 4.0 |")
    assert len({line.count("|") for line in lines[2:]}) == 1
    escaped = markdown_table({"rows": [{"name": "a|b", "metrics": {"knn/top1": 0.5}}]})
    assert "a\\|b" in escaped


def test_terminal_shows_every_row_and_number_within_eighty_columns():
    text = printed(vae_evaluation(), width=80)
    assert [line.strip() for line in text.splitlines()].count("") == 3, "one empty line after each table"
    assert max(map(len, text.splitlines())) <= 80
    for expected in (
        "raw pixels",
        "VAE encoder",
        "71.2 ± 4.0",
        "0.482",
        "independent pixels (factorised)",
        "1.832",
        "6.3",
    ):
        assert expected in text


def test_long_names_are_broken_rather_than_columns_left_out():
    name = "random encoder · SimCLR · Fashion-MNIST · seed 0 · widths [8, 16]"
    rows = [{"name": name, "metrics": simclr_evaluation()["rows"][0]["metrics"]}]
    text = printed({"rows": rows}, width=80)
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("95.4", "96.4", "65.2 ±", "85.3 ±", "90.5 ±", "random encoder · SimCLR", "[8, 16]"):
        assert expected in text


def test_terminal_takes_names_literally():
    assert "[red]x[/red]" in printed({"rows": [{"name": "[red]x[/red]", "metrics": {"knn/top1": 0.5}}]})


def test_every_metric_has_a_head_and_known_ones_a_direction():
    for name in ("knn/top1", "few_label/top1_n1", "masked/accuracy", "elbo/elbo", "samples/min_class_share"):
        assert describe(name, {}).arrow == "↑"
    for name in ("masked/perplexity", "elbo/bits_per_dim", "frechet/pixels_n2000", "kid/resnet18"):
        assert describe(name, {}).arrow == "↓"
    assert describe("few_label/top1_n1", {}).column == "1 label per class"
    assert describe("frechet/my_net_n500", {}).column == "Fréchet distance, my_net, 500 samples"


def test_recall_in_each_direction_is_a_table_beside_chance():
    metrics = {}
    for k in (1, 5, 10):
        for direction in ("image_to_text", "text_to_image"):
            metrics |= {f"retrieval/{direction}_r{k}": 0.05 * k, f"retrieval/{direction}_r{k}_chance": 0.01 * k}
    found = by_key({"rows": [{"name": "CLIP", "metrics": metrics}]})
    for key in ("retrieval_caption", "retrieval_image"):
        assert found[key].columns == ("recall@1 ↑", "recall@5 ↑", "recall@10 ↑")
        model, chance = found[key].rows
        assert [str(cell) for cell in model.cells] == ["5.0", "25.0", "50.0"] and chance.reference
    panels = {describe(name, {}).panel for name in metrics}
    assert panels == {"Caption of an image, recall, %", "Image of a caption, recall, %"}
    lines = {describe(name, {}).line for name in metrics if "image_to_text" in name}
    assert len(lines) == 6


def test_sentence_similarity_is_shown_times_hundred():
    table = by_key({"rows": [{"name": "SimCSE", "metrics": {"sts/spearman": 0.7625}}]})["similarity"]
    assert (table.columns[0], str(table.rows[0].cells[0])) == ("Spearman correlation x 100 ↑", "76.2")
