"""Tables over runs: which runs are one row, which rows one table, and what is said of them."""

import csv
import io
import json
import math
import os
import statistics

import pytest
import yaml
from cli.made_runs import make_run

from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main
from ssl_lab.limited import no_formula
from ssl_lab.measured import merged
from ssl_lab.report.leaderboard import leaderboard

RAW = {"knn/top1": 0.9, "few_label/top1_n1": 0.5, "few_label/top1_n1_std": 0.06}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def judged(
    path,
    knn,
    *,
    seed,
    temperature=0.5,
    data="Digits",
    split_seed=0,
    label_fraction=1.0,
    neighbours=20,
    batch_size=8,
    metrics=None,
    **facts,
):
    """A finished run with an evaluation; its random encoder depends on the seed, raw pixels on nothing."""
    overrides = ["experiment=simclr_digits", f"method.temperature={temperature}", f"seed={seed}"]
    make_run(path, seed=seed, data=data, overrides=facts.pop("overrides", overrides), hardware="2 CPU threads", **facts)
    settings = {
        "seed": seed,
        "run_dir": str(path),
        "method": {"temperature": temperature},
        "data": {"split_seed": split_seed, "batch_size": batch_size, "label_fraction": label_fraction},
        "encoder": {"widths": [8]},
        "evaluation": {"knn": {"num_neighbors": neighbours}},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = [
        {"name": "raw pixels", "metrics": RAW},
        {"name": "random encoder", "metrics": {"knn/top1": 0.8 + seed / 100}},
        {"name": "SimCLR encoder", "metrics": metrics or {"knn/top1": knn, "few_label/top1_n1": knn - 0.1}},
    ]
    (path / "evaluation.json").write_text(json.dumps({"split": "test", "data": data, "rows": rows}))
    return path


def lines(capsys, *args):
    capsys.readouterr()
    assert main(["leaderboard", *map(str, args)]) == 0
    return capsys.readouterr().out.splitlines()


def entries(board):
    return {entry.row.name: entry for entry in board.entries}


def test_runs_that_differ_in_their_seed_alone_are_one_row(tmp_path):
    values = {0: 0.95, 1: 0.97, 2: 0.93}
    for seed, value in values.items():
        judged(tmp_path / f"a{seed}", value, seed=seed, age=1000.0 * (1 + seed))
    judged(tmp_path / "b", 0.99, seed=0, temperature=0.1, batch_size=16)
    (board,) = leaderboard([tmp_path]).boards
    found = entries(board)
    one, three = (f"SimCLR, data.batch_size={size} method.temperature={t}" for size, t in ((16, 0.1), (8, 0.5)))
    assert list(found) == [one, three, "raw pixels", "random encoder"]
    mean = found[three]
    assert mean.means["knn/top1"] == pytest.approx(statistics.fmean(values.values()))
    assert mean.deviations["knn/top1"] == pytest.approx(statistics.stdev(values.values()))
    assert (mean.seeds, mean.num_runs, mean.wall_time_sec) == ([0, 1, 2], 3, 1000.0)
    assert mean.command == "ssl-lab pretrain -m experiment=simclr_digits method.temperature=0.5 seed=0,1,2"
    single = found[one]
    assert single.command == "ssl-lab pretrain experiment=simclr_digits method.temperature=0.1 seed=0"
    assert not single.deviations
    random = found["random encoder"]  # of seeds 0, 1 and 2; that of seed 0 came twice
    assert (random.num_runs, random.means["knn/top1"]) == (3, pytest.approx(0.81))
    assert found["raw pixels"].num_runs == 1 and not found["raw pixels"].deviations
    notes = " ".join(board.notes)
    assert "Scores of the last checkpoint." in notes and "different numbers of seeds (1 and 3)" in notes
    assert "mean over draws of the labels" in notes and "2 CPU threads" in notes
    assert "draws" not in board.table.explanation


@pytest.mark.parametrize(
    ("raw", "kinds"),
    [("spectra", {"spectra": "input", "random encoder": "encoder"}), ("raw pixels", None), ("word counts", {})],
)
def test_raw_input_is_one_row_for_all_encoders(tmp_path, raw, kinds):
    """As the records say; those of before are read by the names that it had then."""
    for seed, width in enumerate((8, 16)):
        path = judged(tmp_path / str(seed), 0.9, seed=seed)
        settings = yaml.safe_load((path / "config.yaml").read_text())
        (path / "config.yaml").write_text(yaml.safe_dump({**settings, "encoder": {"widths": [width]}}))
        metrics = {raw: {"knn/top1": 0.5}, "random encoder": {"knn/top1": 0.6}, "SimCLR encoder": {"knn/top1": 0.9}}
        record = {"protocol": "KNN", "metrics": metrics, **({} if kinds is None else {"baselines": kinds})}
        (path / "evaluation.json").write_text(json.dumps({"split": "test", **merged([], [record])}))
    (board,) = leaderboard([tmp_path]).boards
    rows = {name for name, entry in entries(board).items() if entry.is_baseline}
    assert rows == {raw, *(f"random encoder (ConvNet widths=[{width}])" for width in (8, 16))}


def test_how_often_a_run_is_saved_and_drawn_makes_no_other_row(tmp_path):
    for seed, every in enumerate((10, None)):
        path = judged(tmp_path / str(seed), 0.9, seed=seed)
        further = {"pictures_every_n_epochs": every, "save_every_n_minutes": seed, "save_every_n_steps": every}
        with (path / "config.yaml").open("a") as file:
            yaml.safe_dump(further, file)
    (board,) = leaderboard([tmp_path], metrics=["knn/top1"]).boards
    assert [entry.num_runs for entry in board.entries if not entry.is_baseline] == [2]


def test_what_is_not_comparable_is_left_out_or_stands_apart(tmp_path, capsys):
    judged(tmp_path / "a", 0.95, seed=0)
    judged(tmp_path / "again", 0.99, seed=0, age=10.0)  # newer, so it counts, and not because it is better
    judged(tmp_path / "other_split", 0.94, seed=0, split_seed=7)
    judged(tmp_path / "other_probe", 0.93, seed=0, neighbours=5)
    judged(tmp_path / "other_data", 0.92, seed=0, data="Fashion-MNIST")
    judged(tmp_path / "goes_on", 0.91, seed=0, status="failed")
    make_run(tmp_path / "without_evaluation")
    broken = judged(tmp_path / "broken", 0.9, seed=9)
    (broken / "evaluation.json").write_text('{"rows": [')
    found = leaderboard([tmp_path])
    own = {
        board.title: [
            (name, value)
            for e in board.entries
            for name, value in e.means.items()
            if name.startswith("knn") and not e.is_baseline
        ]
        for board in found.boards
    }
    assert own == {
        "Digits (split_seed=0), test split": [
            ("knn/top1[num_neighbors=5]", 0.93),
            ("knn/top1[num_neighbors=20]", 0.99),
        ],
        "Digits (split_seed=7), test split": [("knn/top1", 0.94)],
        "Fashion-MNIST, test split": [("knn/top1", 0.92)],
    }
    (board,) = [board for board in found.boards if "split_seed=0" in board.title]
    assert board.table.columns[:2] == ("kNN, num_neighbors=5 ↑", "kNN, num_neighbors=20 ↑")
    raw = entries(board)["raw pixels"]
    assert raw.means["knn/top1[num_neighbors=5]"] == 0.9 and raw.num_runs == 1
    out = lines(capsys, tmp_path, "--data", "fashion")
    assert sum(line.startswith("### ") for line in out) == 1 and "### Fashion-MNIST, test split" in out
    assert out[-1].startswith(
        "Left out: 1 failed, 1 finished without evaluation, 1 repeated with the same seed, 1 damaged ("
    )
    assert f"{tmp_path / 'broken'}: evaluation.json cannot be read" in out[-1]


def test_finetuned_rows_say_their_weights_and_checkpoint(tmp_path, capsys):
    command = ["run=runs/x", "data=digits", "seeds=[0,1]", "baseline=true"]
    for start in ("pretrained", "random"):
        for seed in (0, 1):
            metrics = {"finetune/accuracy": (0.9 if start == "pretrained" else 0.7) + seed / 100}
            place = tmp_path / start / f"seed_{seed}"
            judged(
                place,
                0,
                seed=seed,
                start=start,
                checkpoint="best",
                metrics=metrics,
                method="Classification",
                overrides=command,
            )
    (board,) = leaderboard([tmp_path], metrics=["finetune/accuracy"]).boards
    found = entries(board)
    assert [(name, e.num_runs) for name, e in found.items() if not e.is_baseline] == [
        ("Classification, pretrained weights", 2),
        ("Classification, random weights", 2),
    ]
    assert {e.command for e in found.values() if not e.is_baseline} == {
        "ssl-lab finetune run=runs/x data=digits 'seeds=[0,1]' baseline=true"
    }
    assert board.notes[0] == "Scores of the checkpoint that was best on the validation split."
    (line,) = [line for line in lines(capsys, tmp_path) if line.startswith("- ")]
    assert line.startswith(
        "- Classification, pretrained weights and Classification, random weights: `ssl-lab finetune "
    )


def test_finetuned_rows_name_the_method_that_trained_the_weights_and_each_share_of_labels_has_a_table(tmp_path):
    values = {("SimCLR", 0.1): 0.8, ("MAE", 0.1): 0.7, (None, 0.1): 0.6, ("SimCLR", 1.0): 0.9, ("SimCLR", 0.01): 0.5}
    for k, ((method, share), value) in enumerate(values.items()):
        for seed in (0, 1):
            judged(
                tmp_path / f"{k}/seed_{seed}",
                0,
                seed=seed,
                label_fraction=share,
                start="pretrained" if method else "random",
                pretraining=method,
                metrics={"finetune/accuracy": value},
                method="Classification",
            )
    found = {
        board.data: [(entry.row.name, entry.num_runs) for entry in board.entries if not entry.is_baseline]
        for board in leaderboard([tmp_path], metrics=["finetune/accuracy"]).boards
    }
    assert list(found) == [f"Digits (label_fraction={share})" for share in (0.01, 0.1, 1.0)]
    rows = [f"Classification, {start} weights" for start in ("SimCLR", "MAE", "random")]
    assert list(found.values()) == [[(rows[0], 2)], [(row, 2) for row in rows], [(rows[0], 2)]]


def test_a_score_that_is_not_finite_never_comes_first(tmp_path):
    for temperature, seed, score in ((0.3, 0, math.nan), (0.3, 1, 0.99), (0.4, 0, math.inf), (0.5, 0, 0.9)):
        metrics = {"knn/top1": score, "masked/perplexity": -score}
        judged(tmp_path / f"{temperature}_{seed}", 0, seed=seed, temperature=temperature, metrics=metrics)
    for metric in ("knn/top1", "masked/perplexity"):
        (board,) = leaderboard([tmp_path], metrics=[metric]).boards
        assert [next(iter(entry.means.values())) for entry in board.entries][0] in (0.9, -0.9)


def test_metric_and_protocol_choose_and_sort(tmp_path, capsys):
    judged(tmp_path / "a", 0, seed=0, metrics={"knn/top1": 0.9, "linear/top1": 0.7, "masked/perplexity": 30.0})
    judged(
        tmp_path / "b",
        0,
        seed=0,
        temperature=0.1,
        metrics={"knn/top1": 0.8, "linear/top1": 0.75, "masked/perplexity": 20.0},
    )

    def order(*args):
        rows = [line.split(" | ")[0] for line in lines(capsys, tmp_path, *args) if line.startswith("| SimCLR")]
        return [row[-3:] for row in rows]

    assert order("--protocol", "knn") == ["0.5", "0.1"]
    assert order("--metric", "test/linear/top1", "--metric", "knn/top1") == ["0.1", "0.5"]
    assert order("--metric", "masked/perplexity") == ["0.1", "0.5"]  # the lower the better
    (head,) = [line for line in lines(capsys, tmp_path, "--metric", "linear/top1") if "seeds" in line]
    assert head == "|  | seeds | linear probe ↑ | time |"
    for args, message in (
        (["--metric", "linear/top"], "Did you mean linear/top1?"),
        (["--protocol", "knnn"], "Did you mean knn?"),
        (["--data", "cifar"], "Choose from: Digits."),
        (["--out", "x.xlsx"], "its formats are .md, .csv, .html"),
    ):
        assert main(["leaderboard", str(tmp_path), *args]) == 1
        errors = capsys.readouterr().err
        assert message in errors and "Traceback" not in errors
    make_run(tmp_path / "running/only", status="failed")
    assert main(["leaderboard", str(tmp_path / "running")]) == 1
    assert "no run has finished with an evaluation: 1 failed." in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_metric_that_was_not_asked_for_brings_no_floor_either(tmp_path, capsys):
    metrics = {
        "frechet/pixels_n50": 1.5,
        "frechet/pixels_n50_real": 0.2,
        "kid/pixels_n50": 0.1,
        "kid/pixels_n50_real": 0.0,
    }
    judged(tmp_path / "a", 0, seed=0, metrics=metrics)
    text = "\n".join(lines(capsys, tmp_path, "--metric", "frechet/pixels_n50"))
    assert "real images (floor) | – | 0.2 |" in text and "KID" not in text


def test_files(tmp_path, capsys):
    for seed in (0, 1):
        judged(tmp_path / f"runs/a{seed}", 0.95 + seed / 100, seed=seed, data="Digits <b>&", method="SimCLR|<i>")
    out = lines(capsys, tmp_path / "runs", "--out", tmp_path / "board")
    assert [line.rsplit("/", 1)[1] for line in out] == ["leaderboard.md", "leaderboard.csv", "leaderboard.html"]
    page = (tmp_path / "board/leaderboard.html").read_text()
    assert "SimCLR|&lt;i&gt;" in page and "Digits &lt;b&gt;&amp;" in page and "<i>" not in page.replace("<i style", "")
    assert "://" not in page and 'data-v="0.95' in page and "seed=0,1" in page
    markdown = (tmp_path / "board/leaderboard.md").read_text()
    assert "| SimCLR\\|&lt;i> | 2 | **95.5** ± 0.7 |" in markdown
    rows = list(csv.DictReader(io.StringIO((tmp_path / "board/leaderboard.csv").read_text())))
    (own,) = [row for row in rows if (row["kind"], row["metric"]) == ("run", "knn/top1")]
    assert (float(own["mean"]), own["num_seeds"], own["seeds"]) == (pytest.approx(0.955), "2", "0 1")
    assert float(own["std"]) == pytest.approx(statistics.stdev([0.95, 0.96]))
    lines(capsys, tmp_path / "runs", "--out", tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "board/leaderboard.csv").read_text()


def test_poor_runs_are_named_below_the_first_table(tmp_path, capsys):
    verdict = {
        "findings": [{"kind": "input", "subject": "kNN 95 %", "verb": "is", "rest": "below <b> raw pixels (97 %)"}],
        "remedy": "Train longer.",
    }
    judged(tmp_path / "runs/a0", 0.95, seed=0, verdict=verdict)
    judged(tmp_path / "runs/a1", 0.95, seed=1)
    judged(tmp_path / "runs/b", 0.99, seed=0, temperature=0.1)
    lines(capsys, tmp_path / "runs", "--out", tmp_path / "board")
    line = "Poor result: kNN 95 % is below &lt;b> raw pixels (97 %) (1 of 2 seeds, here seed 0)."
    assert (tmp_path / "board/leaderboard.md").read_text().count(line) == 1
    page = (tmp_path / "board/leaderboard.html").read_text()
    assert page.count('<p class="poor">') == 1 and "below &lt;b&gt; raw pixels" in page
    rows = csv.DictReader(io.StringIO((tmp_path / "board/leaderboard.csv").read_text()))
    assert {row["verdict"] for row in rows if row["kind"] == "run"} == {"", line.replace("&lt;", "<")}


def test_a_block_of_a_markdown_file_is_renewed_and_nothing_else(tmp_path, capsys):
    judged(tmp_path / "runs/a", 0.95, seed=0)
    begin, end = "<!-- leaderboard: --metric knn/top1 -->", "<!-- end -->"
    absent = f"<!-- leaderboard: --data cifar -->\nstays\n{end}\n"
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n{begin}\nold | table\n{end}\nBetween <!-- a note -->\n{absent}After\n")
    first, second = lines(capsys, tmp_path / "runs", "--update", page)
    assert first == f"{page}: 1 table renewed." and second.startswith(f"{page}:6 stays as it is: No run was judged")
    text = page.read_text()
    assert text.startswith(f"# Title\n{begin}\n\n|  | seeds | kNN ↑ | time |\n") and "old" not in text
    assert (
        text.endswith(f"{end}\nBetween <!-- a note -->\n{absent}After\n")
        and "| SimCLR | 1 | **95.0** | 30 min 0 s |" in text
    )
    lines(capsys, tmp_path / "runs", "--update", page)
    assert page.read_text() == text
    page.write_bytes(f"# Title\r\n{begin}\r\nold\r\n{end}\r\nAfter\r\n".encode())
    lines(capsys, tmp_path / "runs", "--update", page)
    content = page.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") > 8 and content.endswith(b"<!-- end -->\r\nAfter\r\n")
    page.write_bytes(f"# Title\n{begin}\nold\n{end}\r\nAfter\r\n".encode())
    lines(capsys, tmp_path / "runs", "--update", page)
    content = page.read_bytes()
    assert content.startswith(f"# Title\n{begin}\n\n|".encode()) and content.count(b"\r\n") == 2
    for content, message in (
        ("no block", "it has no block"),
        (f"{begin}\nno end", "one of its blocks has no end"),
        (f"<!-- leaderboard: --color -->\n{end}", "there is no option --color"),
        (absent, "No run was judged on data called cifar"),
    ):
        page.write_text(content)
        assert main(["leaderboard", str(tmp_path / "runs"), "--update", str(page)]) == 1
        assert message in capsys.readouterr().err and page.read_text() == content


def test_tab_completes_options():
    assert completions("ssl-lab leader") == ["leaderboard"] and "--metric" in completions(
        "ssl-lab leaderboard runs --me"
    )


def test_an_update_writes_through_a_link_and_keeps_the_mode(tmp_path):
    judged(tmp_path / "runs" / "a", 0.9, seed=0)
    target = tmp_path / "real.md"
    target.write_text("<!-- leaderboard: -->\n<!-- end -->\n")
    target.chmod(0o600)
    link = tmp_path / "README.md"
    link.symlink_to("real.md")
    assert main(["leaderboard", str(tmp_path / "runs"), "--update", str(link)]) == 0
    assert link.is_symlink() and "SimCLR" in target.read_text() and target.stat().st_mode & 0o777 == 0o600


def test_no_cell_of_a_csv_file_is_a_formula():
    for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1"):
        assert not no_formula(text).startswith(("=", "+", "-", "@", "\t"))
    assert no_formula("Digits") == "Digits"
