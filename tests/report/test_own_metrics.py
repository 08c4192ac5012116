"""A protocol of somebody else says how its metrics are shown, and everything that shows them does so."""

import csv
import io
import json
import shutil

import pytest
import torch
from arrays import ArrayImages
from report.fake_runs import write_run

from ssl_lab.cli.main import main
from ssl_lab.engine.baselines import Baseline
from ssl_lab.engine.judge import check_needs, evaluate_with_baselines, join_records, write_descriptions
from ssl_lab.evaluation.protocol import LabelFreeProtocol
from ssl_lab.metrics import OTHER, Metric, Table, described, descriptions
from ssl_lab.report.dashboard.details import read_details
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.leaderboard import leaderboard
from ssl_lab.report.leaderboard_files import as_csv, as_html, as_markdown
from ssl_lab.report.page import write_report
from ssl_lab.report.tables import markdown_table, results_table, tables

TRUST = Table(key="trust", title="Trust <of> features", explanation="How often a feature is as sure as it is right.")


class Trust(LabelFreeProtocol):
    """Two numbers."""

    metrics = {
        "trust/error_k#": Metric(column="calibration error, k = {0}", table=TRUST, better="lower", percent=True),
        "trust/bins": Metric(column="bins", table=TRUST, format=".0f"),
    }

    def score(self, x):
        return {"trust/error_k5": 0.125, "trust/bins": 15.0, "trust/undeclared": 2.0}


class Judged:
    """As much of a method as is judged."""

    result_name = "SimCLR encoder"
    needs_columns = ()

    def capabilities(self):
        return {"features": lambda batch: batch["image"].float().flatten(1)}

    def state_dict(self):
        return {}


def judged_run(path, seed=0):
    """A finished run that was judged by it, during training and at the end."""
    evaluated = {f"eval/{name}": value for name, value in Trust().score(None).items()}
    write_run(path, seed=seed)
    (path / "evaluation.json").unlink()
    write_descriptions(path, [Trust()], evaluated)
    text = (path / "metrics.csv").read_text().splitlines()
    names, values = ",".join(evaluated), ",".join(map(str, evaluated.values()))
    (path / "metrics.csv").write_text("\n".join([f"{text[0]},{names}", *(f"{line},{values}" for line in text[1:])]))
    baselines = [Baseline(name="raw pixels", kind="input", metrics=[{"trust/error_k5": 0.25}])]
    records = evaluate_with_baselines(Judged(), [Trust()], ArrayImages(), baselines, device=torch.device("cpu"))
    join_records(path / "evaluation.json", records)
    summary = json.loads((path / "summary.json").read_text())
    scores = {f"test/{name}": value for name, value in records[0]["metrics"]["SimCLR encoder"].items()}
    facts = {"metrics": {**evaluated, **scores}, "objective": {"name": "eval/trust/error_k5", "value": 0.125}}
    (path / "summary.json").write_text(json.dumps({**summary, **facts, "status": "finished"}))
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return judged_run(tmp_path_factory.mktemp("runs") / "trust")


def test_a_report_shows_title_unit_arrow_table_and_panel(run_dir, tmp_path):
    page = write_report(run_dir, tmp_path / "report.html").read_text()
    assert "<h3>Trust &lt;of&gt; features</h3>" in page and TRUST.explanation in page
    assert "calibration error, k = 5\u00a0↓" in page and "12.5" in page
    assert 'aria-label="Curve: calibration error, k = 5"' in page
    assert 'class="objective"><dt>calibration error, k = 5</dt>' in page and "12.5 %" in page
    assert "Other metrics" in page and "trust/undeclared" in page, "what is not declared has its own name"


def test_the_terminal_and_a_model_card_show_it(run_dir):
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    (trust, other) = tables(evaluation)
    assert trust.columns == ("calibration error, k = 5 ↓", "bins") and other.columns == ("trust/undeclared",)
    assert [str(cell) for cell in trust.rows[1].cells] == ["12.5", "15"] and trust.rows[1].cells[0].best
    assert "**Trust &lt;of> features**" in markdown_table(evaluation)


def test_a_leaderboard_shows_it_in_all_formats(run_dir):
    found = leaderboard([run_dir.parent])
    text, page = as_markdown(found), as_html(found)
    assert "**Trust &lt;of> features**" in text and "| calibration error, k = 5 ↓ | bins |" in text and "12.5" in text
    assert "Trust &lt;of&gt; features" in page and "calibration error, k = 5" in page
    (row,) = [
        row
        for row in csv.DictReader(io.StringIO(as_csv(found)))
        if row["metric"] == "trust/error_k5" and row["kind"] == "run"
    ]
    assert float(row["mean"]) == 0.125
    assert [metric.better for metric in found.boards[0].metrics.values()] == ["lower", ""]


def test_the_dashboard_and_the_ranking_show_it(run_dir, capsys):
    index = RunIndex([run_dir.parent])
    shown = {"label": "calibration error, k = 5", "better": "lower", "percent": True}
    names = index.as_json()["described"]
    assert names["test/trust/error_k5"] == names["eval/trust/error_k5"] == shown
    details = read_details(index.entries[0])
    assert details["results"][0]["title"] == TRUST.title and not details["problems"]
    assert main(["runs", "best", "test/trust/error_k5", str(run_dir.parent)]) == 0
    assert "lowest first" in capsys.readouterr().out


def test_the_newest_run_has_the_last_word_and_the_rest_is_told(run_dir, tmp_path):
    older = tmp_path / "runs" / "older"
    shutil.copytree(run_dir, tmp_path / "runs" / "newer")
    judged_run(older, seed=1)
    evaluation = (older / "evaluation.json").read_text().replace("calibration error", "calibration mistake")
    (older / "evaluation.json").write_text(evaluation)
    summary = json.loads((older / "summary.json").read_text())
    (older / "summary.json").write_text(json.dumps({**summary, "started": "2001-01-01T00:00:00+00:00"}))
    found = leaderboard([tmp_path / "runs"])
    assert "calibration error, k = 5 ↓" in found.boards[0].table.columns
    assert found.left_out == ["other descriptions of trust/error_k5 than the newest run's"]


def test_descriptions_come_back_as_they_were_written():
    metrics = {"a/b": Metric(column="x"), "a/c_#": Metric(column="{0}", table=None, percent=True, order=(3,)),
               "a/*": Metric(column="{0} of a", table=TRUST, reference="chance", competes=False, format=".3g")}  # fmt: skip
    plain = json.loads(json.dumps(descriptions(metrics, ["a/b", "a/c_12", "a/d", "b/d"])))
    found = described(plain)
    assert list(found) == ["a/b", "a/c_12", "a/d"] and found["a/d"].table == TRUST
    assert found["a/c_12"] == Metric(column="12", table=None, panel="12", percent=True, order=(3, 1, 12))
    assert found["a/d"].column == "d of a" and found["a/d"].reference == "chance" and not found["a/d"].competes


@pytest.mark.parametrize(
    "wrong",
    [
        {"column": 5},
        {"column": "x" * 301},
        {"column": "a", "format": ".999999999f"},
        {"column": "a", "format": "{0.__class__}"},
        {"column": "a", "percent": "yes"},
        {"column": "a", "better": "sideways"},
        {"column": "a", "order": "first"},
        {"column": "a", "order": [1] * 9},
        {"better": "higher"},
        {"column": "a", "script": "alert(1)"},
        "not a mapping",
    ],
    ids=str,
)
def test_what_a_stranger_s_file_should_not_say_is_left_out_and_named(wrong):
    problems = []
    found = described(
        {"metrics": {"a/b": wrong, "a/c": {"column": "fine"}}, "tables": {"t": {"title": ["x"]}}}, problems
    )
    assert found["a/c"].column == "fine"
    assert ("a/b" in found) == ("script" in wrong) and len(problems) == 2


def test_metrics_that_would_share_a_column_are_told_apart_by_their_names():
    metrics = {
        "a/#": Metric(column="score"),
        "a/b": Metric(column=" "),
        "a/c": Metric(column="score", reference="chance"),
    }
    values = {"a/1": 1.0, "a/2": 2.0, "a/b": 3.0, "a/c": 4.0}
    evaluation = {"described": descriptions(metrics, values), "rows": [{"name": "encoder", "metrics": values}]}
    (table,) = tables(evaluation)
    assert table.columns == ("score (a/1)", "score (a/2)", "", "score")
    assert [[str(cell) for cell in row.cells] for row in table.rows] == [
        ["1.0", "2.0", "3.0", "–"],
        ["–", "–", "–", "4.0"],
    ]
    assert results_table(evaluation).row_count == 1


def test_a_description_without_a_table_and_a_thousand_of_them_are_read():
    plain = {"metrics": {f"a/dim_{k}": {"column": "x"} for k in range(1000)}}
    problems = []
    found = described(plain, problems)
    assert found["a/dim_999"].table == OTHER and len(found) == 1000 and not problems


@pytest.mark.parametrize("text", ["{1} of a", "{name}", "{"])
def test_a_template_that_does_not_fit_its_wildcards_is_refused_before_training(text):
    protocol = Trust()
    for metric in (Metric(column=text), Metric(column="a", line=text)):
        protocol.metrics = {"a/b": Metric(column="{"), "a/#": metric}
        with pytest.raises(ValueError, match=r"a/# of Trust: .* found 1 of these. Write \{0\} .* \{1\}"):
            check_needs(Judged(), [protocol], ArrayImages())


@pytest.mark.parametrize("plain", [None, [], "x", {"metrics": 3}, {"metrics": [1], "tables": None}], ids=str)
def test_what_is_no_description_describes_nothing(plain):
    assert described(plain) == {}
