import math
import xml.etree.ElementTree as ET

from report.fake_runs import mlm_evaluation, vae_evaluation, write_run

from ssl_lab.report.curves import comparison_panels, run_panels
from ssl_lab.runs.read import Curve, read_run


def panels_of(run):
    return {panel.title: panel for panel in run_panels(run)}


def test_panels_group_what_belongs_together_in_reading_order(tmp_path):
    run = read_run(write_run(tmp_path / "run", evaluation=vae_evaluation(), parts=("kl",)))
    titles = [panel.title for panel in run_panels(run)]
    assert titles[:2] == ["Training loss", "Accuracy, %"]
    assert titles[-2:] == ["macro F1, %", "mean recall, %"]
    assert titles.index("Part of the loss: kl") < titles.index("Learning rate") < titles.index("Samples per second")
    panels = panels_of(run)
    assert [line.label for line in panels["Accuracy, %"].lines][:2] == ["kNN", "linear probe"]
    bits = panels["bits per pixel value"].lines
    assert [(line.label, line.reference) for line in bits] == [
        ("model", False),
        ("independent pixels (factorised)", True),
    ]
    assert [title for title in titles if "class" in title] == [
        *("rarest class among samples, %", "accuracy of the judge of classes, %")
    ]


def test_what_training_logs_beside_the_loss_has_titles_of_its_own(tmp_path):
    names = (
        "train/feature_rank",
        "optim/grad_norm",
        "perf/evaluation_frac",
        "perf/mfu",
        "perf/tflops",
        "perf/memory_gib",
    )
    row = ",0.5" * len(names)
    (tmp_path / "metrics.csv").write_text(f"step,epoch,{','.join(names)}\n10,1{row}\n20,2{row}\n")
    panels = panels_of(read_run(tmp_path))
    assert len(panels) == len(names)
    assert not [title for title in panels if "_" in title or "/" in title or "Part of the loss" in title]
    assert panels["Evaluation, % of time"].lines[0].last == panels["Operations, % of the device's peak"].lines[0].last


def test_shares_are_drawn_in_percent(tmp_path):
    run = read_run(write_run(tmp_path / "run", evaluation=mlm_evaluation()))
    model, unigram = panels_of(run)["hidden words guessed right, %"].lines
    assert 30 < model.curve.values[-1] < 42
    assert unigram.last == "6.1"


def test_deviations_become_bands_and_no_panel(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,eval/few_label/top1_n1,eval/few_label/top1_n1_std\n10,1,0.5,0.05\n20,2,0.75,0.125\n"
    )
    (panel,) = run_panels(read_run(tmp_path))
    assert panel.lines[0].deviation == (5.0, 12.5)


def test_svg_is_well_formed_follows_the_page_and_brings_no_names_of_its_own(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    for panel in run_panels(run):
        root = ET.fromstring(str(panel.svg))
        assert root.attrib["aria-label"] == f"Curve: {panel.title}"
        assert "width" not in root.attrib
        assert not [node for node in root.iter("g") if "id" in node.attrib]
        assert "var(--c0)" in panel.svg and "var(--muted)" in panel.svg
        assert "#0a0" not in panel.svg and "font-family" not in panel.svg and "<style" not in panel.svg


def test_long_and_broken_curves_stay_small(tmp_path):
    values = [math.exp(-k / 4000) for k in range(40_000)]
    values[7] = math.nan
    rows = "\n".join(f"{k},0,{value}" for k, value in enumerate(values))
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n" + rows)
    (panel,) = run_panels(read_run(tmp_path))
    assert len(panel.svg) < 40_000


def test_curves_without_a_single_finite_value_are_drawn_empty(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,nan\n1,0,inf\n")
    (panel,) = run_panels(read_run(tmp_path))
    assert panel.lines[0].last == "not finite"


def test_a_comparison_draws_one_line_per_run_and_leaves_yardsticks_out(tmp_path):
    first = read_run(write_run(tmp_path / "a", evaluation=vae_evaluation(), parts=("kl", "mine")))
    second = read_run(write_run(tmp_path / "b", evaluation=vae_evaluation(), parts=("kl",)))
    panels = {panel.title: panel for panel in comparison_panels([first, second], ["A", "B"])}
    assert [line.label for line in panels["kNN: Accuracy, %"].lines] == ["A", "B"]
    assert [line.color for line in panels["bits per pixel value"].lines] == [0, 1]
    assert "Part of the loss: kl" in panels and "Part of the loss: mine" not in panels
    assert isinstance(panels["Training loss"].lines[0].curve, Curve)


def test_a_single_measurement_is_a_large_dot_with_its_value_and_a_single_yardstick_a_level(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,eval/masked/perplexity,eval/masked/unigram_perplexity\n10,1,52.5,80.25\n"
    )
    (panel,) = run_panels(read_run(tmp_path))
    assert [line.reference for line in panel.lines] == [False, True]
    texts = ["".join(text.itertext()).strip() for text in ET.fromstring(panel.svg).iter() if text.tag.endswith("text")]
    assert panel.lines[0].last in texts and panel.lines[1].last not in texts
    assert "stroke-dasharray" in panel.svg, "the yardstick is drawn"


def test_single_measurements_of_several_runs_have_no_values_that_would_cover_each_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,epoch,eval/knn/top1\n10,1,0.5125\n")
    (panel,) = comparison_panels([read_run(tmp_path / name) for name in ("a", "b")], ["a", "b"])
    assert "51.2" not in panel.svg and "51.3" not in panel.svg
