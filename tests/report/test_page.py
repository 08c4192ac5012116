import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from PIL import Image
from report.fake_runs import mlm_evaluation, probe_scores, simclr_evaluation, vae_evaluation, write_run

from ssl_lab.measured import records_of
from ssl_lab.report.curves import run_panels
from ssl_lab.report.page import write_comparison, write_report
from ssl_lab.runs.compare import config_differences, run_labels, side_by_side
from ssl_lab.runs.directory import update_summary
from ssl_lab.runs.read import read_run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and keeps texts and attributes."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.tags, self.addresses = [], [], [], []
        self.feed(html)
        assert not self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_report_has_all_parts(tmp_path):
    run_dir = write_run(tmp_path / "run", evaluation=vae_evaluation(), sentences=True, parts=("kl",))
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    page = Page(path.read_text())
    for expected in (
        "SimCLR on Digits",
        "finished",
        "linear probe",
        "97.1 %",
        "52.3 s",
        "288,704",
        "Accuracy of frozen features, %",
        "± 4.0",
        "Likelihood of unseen images",
        "Quality of samples",
        "Classes among the samples: VAE encoder",
        "it is right on 96.4 % of unseen real images",
        "Macro F1 and mean recall",
        "Training loss",
        "Views",
        "Hidden words",
        "6 of 10",
        "ssl-lab pretrain method=simclr trainer.max_epochs=100",
        "temperature: 0.2",
        "4 March 2026, 10:21 UTC",
        "3f2c1ab",
    ):
        assert expected in page.text, expected
    assert page.tags.count("svg") == len(run_panels(read_run(run_dir)))
    assert page.tags.count("img") == 12
    assert sorted(file.name for file in run_dir.iterdir() if file.name.startswith(".")) == []


def test_the_command_is_the_one_that_made_the_run_without_its_place(tmp_path):
    run_dir = write_run(tmp_path / "run", pictures=())
    (run_dir / "overrides.yaml").write_text(
        yaml.safe_dump(["run=runs/x", "data=digits", "run_dir=runs/y", "force=true"])
    )
    update_summary(run_dir, start="pretrained")
    assert ">ssl-lab finetune run=runs/x data=digits<" in write_report(run_dir).read_text()


def test_report_is_one_small_file_that_loads_nothing(tmp_path):
    path = write_report(write_run(tmp_path / "run", evaluation=vae_evaluation(), sentences=True))
    html = path.read_text()
    assert path.stat().st_size < 2_000_000
    assert "script" not in Page(html).tags
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert not re.search(r"@import|<link|<iframe|url\((?!#)", html)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in Page(html).addresses)
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_the_same_run_gives_the_same_page(tmp_path):
    run_dir = write_run(tmp_path / "run")
    assert write_report(run_dir).read_text() == write_report(run_dir).read_text()


def test_whatever_comes_from_a_run_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    evaluation = simclr_evaluation()
    evaluation["rows"].append({"name": evil, "metrics": {"knn/top1": 0.5, evil: 1.0}})
    run_dir = write_run(tmp_path / "run", evaluation=evaluation, settings={"name": evil}, sentences=True)
    names = ("method", "data", "encoder", "experiment", "error", "hardware", "commit", "status")
    edit(run_dir / "summary.json", **dict.fromkeys(names, evil), objective={"name": evil, "value": 1.0})
    (run_dir / "overrides.yaml").write_text(json.dumps([evil]))
    (run_dir / "metrics.csv").write_text(f"step,epoch,{evil},train/{evil}\n1,0,1.0,2.0\n")
    tokens = [[{"text": evil, "guess": evil, "correct": False}]]
    (run_dir / "pictures" / "masked_sentences" / "step_00000900.json").write_text(json.dumps(tokens))
    (run_dir / "pictures" / "views").rename(run_dir / "pictures" / "a<script>b")
    for path in (write_report(run_dir), write_comparison([run_dir, run_dir], tmp_path / "out.html")):
        html = path.read_text()
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        Page(html)


def test_a_poor_result_is_named_first_and_a_good_one_not(tmp_path):
    run_dir = write_run(tmp_path / "run")
    assert "Poor result" not in write_report(run_dir).read_text()
    finding = {"kind": "input", "subject": "kNN <i>45.0 %", "verb": "is", "rest": "below raw pixels (60.0 %)"}
    edit(run_dir / "summary.json", verdict={"findings": [finding], "remedy": "Train longer."})
    html = write_report(run_dir).read_text()
    text = Page(html).text
    assert "Poor result kNN <i>45.0 % is below raw pixels (60.0 %). Train longer." in text and "<i>45" not in html
    assert text.index("Poor result") < text.index("Results")
    edit(run_dir / "summary.json", status="running")
    assert "Poor result" not in write_report(run_dir).read_text(), "what was said of it before it went on"


def test_a_failed_run_says_so_first(tmp_path):
    run_dir = write_run(tmp_path / "run")
    edit(run_dir / "summary.json", status="failed", error="The loss became NaN at step 312.\nLower optim.lr.", step=312)
    (run_dir / "evaluation.json").unlink()
    html = write_report(run_dir).read_text()
    text = Page(html).text
    assert "The run stopped with an error at step 312" in text and "Lower optim.lr." in text
    assert text.index("Lower optim.lr.") < text.index("Results")
    assert "There is no final evaluation yet." in text


@pytest.mark.parametrize(
    ("status", "expected"),
    [("running", "The run is still going"), ("interrupted", "The run was interrupted at step 600 SIGTERM stopped it")],
)
def test_an_unfinished_run_says_so(tmp_path, status, expected):
    run_dir = write_run(tmp_path / "run")
    error = "SIGTERM stopped it" if status == "interrupted" else None
    edit(run_dir / "summary.json", status=status, error=error)
    assert expected in Page(write_report(run_dir).read_text()).text


@pytest.mark.parametrize("kept", ["config.yaml", "summary.json", "metrics.csv"])
def test_one_file_is_enough(tmp_path, kept):
    full = write_run(tmp_path / "full")
    (tmp_path / "run").mkdir()
    (full / kept).rename(tmp_path / "run" / kept)
    Page(write_report(tmp_path / "run").read_text())


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"status": "running"}'])
@pytest.mark.parametrize("name", ["summary.json", "evaluation.json", "metrics.csv", "config.yaml", "overrides.yaml"])
def test_half_written_files_do_not_stop_the_page(tmp_path, name, content):
    run_dir = write_run(tmp_path / "run", pictures=())
    (run_dir / name).write_text(content)
    Page(write_report(run_dir).read_text())


def test_the_objective_is_found_before_the_summary_names_it(tmp_path):
    run_dir = write_run(tmp_path / "run")
    edit(run_dir / "summary.json", objective=None, metrics={"eval/linear/top1": 0.9123})
    assert "91.2 %" in Page(write_report(run_dir).read_text()).text


def test_the_headline_is_the_score_on_the_test_split(tmp_path):
    run_dir = write_run(tmp_path / "run")
    scores = {"eval/linear/top1": 0.9123, "test/linear/top1": 0.9012}
    edit(run_dir / "summary.json", objective={"name": "eval/linear/top1", "value": 0.9123}, metrics=scores)
    page = write_report(run_dir).read_text()
    assert '<div class="objective"><dt>linear probe</dt><dd>90.1 %<small>test split; validation split: 91.2 %' in page


def test_results_then_pictures_then_curves_and_what_tells_of_the_machine_is_folded(tmp_path):
    page = write_report(write_run(tmp_path / "run")).read_text()
    places = [page.index(f'<section id="{name}">') for name in ("results", "pictures", "curves", "configuration")]
    assert places == sorted(places)
    folded = page.index("<details><summary>Training in detail")
    assert page.index("Curve: Training loss") < folded < page.index("Curve: Samples per second")
    assert page.index("Curve: Accuracy, %") < folded


def test_only_metrics_that_are_shown_are_explained(tmp_path):
    rows = [{"name": "SimCLR encoder", "metrics": {"knn/top1": 0.9, "rankme/rank": 30.0}}]
    page = write_report(write_run(tmp_path / "run", evaluation={"split": "test", "rows": rows})).read_text()
    assert "kNN asks the nearest" in page and "RankMe counts" in page
    assert "LiDAR" not in page and "linear probe is fitted" not in page


def test_a_missing_number_is_a_dash(tmp_path):
    run_dir = write_run(tmp_path / "run")
    edit(run_dir / "summary.json", objective={"name": "eval/linear/top1", "value": None}, samples_per_sec=None)
    text = Page(write_report(run_dir).read_text()).text
    assert "0.9123" not in text and "samples per second" not in text


def test_a_failing_write_leaves_the_old_page(tmp_path, monkeypatch):
    run_dir = write_run(tmp_path / "run")
    before = write_report(run_dir).read_text()

    def full_disk(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr("ssl_lab.files.os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_text() == before
    assert [file.name for file in run_dir.iterdir() if file.suffix == ".tmp"] == []


def test_yardsticks_are_one_row_where_runs_agree_and_carry_a_label_where_not():
    def evaluation(random, **more):
        rows = [("raw pixels", {"knn/top1": 0.9, **more}), ("random encoder", {"knn/top1": random}), ("own", {})]
        return records_of({"rows": [{"name": name, "metrics": metrics} for name, metrics in rows]}, None)

    found = side_by_side([evaluation(0.5), evaluation(0.6, extra=1.0), evaluation(0.5)], ["A", "B", "C"])["rows"]
    assert [row["name"] for row in found] == ["raw pixels", "random encoder · A", "random encoder · B", "A", "B", "C"]
    assert found[0]["metrics"] == {"knn/top1": 0.9, "extra": 1.0}


def test_comparison_puts_runs_side_by_side(tmp_path):
    better = simclr_evaluation()
    better["rows"][1] = {"name": "random encoder", "metrics": probe_scores(0.951, (0.6, 0.8, 0.9))}
    better["rows"][2] = {"name": "SimCLR encoder", "metrics": probe_scores(0.991, (0.871, 0.96, 0.97))}
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", seed=1, evaluation=better),
        write_run(tmp_path / "c", method="MaskedLM", evaluation=mlm_evaluation(), data="PythonDocs", pictures=()),
    ]
    out = tmp_path / "new" / "comparison.html"
    assert write_comparison(runs, out) == out
    html = out.read_text()
    page = Page(html)
    assert "Comparison of 3 runs" in page.text
    for label in ("SimCLR · Digits · seed 0", "SimCLR · Digits · seed 1", "MaskedLM · PythonDocs · seed 0"):
        assert label in page.text
    assert html.count(">raw pixels<") == 2, "shared to the last digit: once in the table and once in the scores below"
    assert "random encoder · SimCLR · Digits · seed 1" in page.text
    assert "<b>87.1</b>" in html and "<b>85.1</b>" not in html
    assert page.text.index("Digits, test split") < page.text.index("PythonDocs, test split")
    assert "kNN: Accuracy, %" in page.text
    assert "method._target_" in page.text and "trainer.max_epochs" not in page.text
    assert not re.search(r"https?://", html)


def test_comparison_shows_errors_and_survives_runs_without_results(tmp_path):
    failed = write_run(tmp_path / "a")
    edit(failed / "summary.json", status="failed", error="It broke.")
    (failed / "evaluation.json").unlink()
    young = tmp_path / "b"
    young.mkdir()
    (young / "config.yaml").write_text("seed: 3\n")
    text = Page(write_comparison([failed, young], tmp_path / "out.html").read_text()).text
    assert "It broke." in text and "None of the runs has a final evaluation yet." in text


def test_comparison_needs_runs(tmp_path):
    with pytest.raises(ValueError, match="no run directory is given. Name one or more"):
        write_comparison([], tmp_path / "out.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it is not a run"):
        write_comparison([tmp_path / "empty"], tmp_path / "out.html")


def test_labels_name_what_differs_and_are_unique(tmp_path):
    def labels(*settings):
        runs = [read_run(write_run(tmp_path / str(len(list(tmp_path.iterdir()))), **kwargs)) for kwargs in settings]
        return run_labels(runs)

    assert labels({}) == ["SimCLR"]
    assert labels({}, {"method": "VICReg"}) == ["SimCLR", "VICReg"]
    assert labels({"seed": 1}, {"seed": 2}) == ["SimCLR · seed 1", "SimCLR · seed 2"]
    assert labels({"settings": {"temperature": 0.1}}, {"settings": {"temperature": 0.5}}) == [
        "SimCLR · temperature 0.1",
        "SimCLR · temperature 0.5",
    ]
    assert len(set(labels({}, {}, {}))) == 3
    same = read_run(tmp_path / "0")
    assert len(set(run_labels([same, same]))) == 2


def test_labels_of_fine_tunings_say_the_weights_that_they_began_with_and_where_they_lie(tmp_path):
    runs = []
    for task, settings in (("linear", {}), ("fcn", {"a": 1, "b": 2, "c": 3})):
        for start in ("pretrained", "random"):
            path = write_run(tmp_path / task / start / "seed_0", settings=settings)
            update_summary(path, start=start, pretraining="MAE" if start == "pretrained" else None)
            runs.append(read_run(path))
    assert run_labels(runs[:2]) == ["SimCLR · MAE weights", "SimCLR · random weights"]
    assert run_labels(runs)[::3] == [
        "SimCLR · MAE weights · linear/pretrained/seed_0",
        "SimCLR · random weights · fcn/random/seed_0",
    ]


def test_config_differences_are_dotted_and_leave_out_what_always_differs(tmp_path):
    runs = [
        read_run(write_run(tmp_path / "a", settings={"views": {"crop": [0.2, 1]}})),
        read_run(write_run(tmp_path / "b", settings={"views": {"crop": [0.5, 1]}, "extra": None})),
    ]
    assert config_differences(runs) == {"method.views.crop": ["[0.2, 1]", "[0.5, 1]"], "method.extra": ["–", "null"]}


def test_what_is_wider_than_a_phone_scrolls_in_a_box_of_its_own_that_keys_reach(tmp_path):
    run = write_run(tmp_path / "run")
    Image.new("RGBA", (1100, 40)).save(run / "pictures/views/step_99999999.png")
    page = write_report(run).read_text()
    boxes = re.findall(r'<div class="scroll[^>]*>', page)
    assert page.count("<table") < len(boxes), "each table and the wide picture"
    assert all('tabindex="0"' in box and "aria-label=" in box for box in boxes)
    assert sum("wide" in box for box in boxes) == 1
