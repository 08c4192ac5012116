import shlex

import pytest
from report.fake_runs import write_picture, write_run

from ssl_lab.runs.files import shell_line
from ssl_lab.runs.read import read_run


def test_a_finished_run_is_read_without_problems(tmp_path):
    run = read_run(write_run(tmp_path / "run", sentences=True))
    assert run.problems == []
    assert (run.method, run.data) == ("SimCLR", "Digits")
    assert run.config["method"]["temperature"] == 0.2
    assert run.command == ["ssl-lab", "pretrain", "method=simclr", "trainer.max_epochs=100", "adapt_to_data=false"]
    assert list(run.pictures) == ["projection", "views"]
    assert list(run.pictures["views"]) == [100, 200, 300, 400, 500, 600]
    assert list(run.sentences) == ["masked_sentences"]
    assert list(run.sentences["masked_sentences"]) == [300, 600]


def test_cells_that_are_empty_or_cut_off_are_left_out_and_the_last_row_of_a_step_counts(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,train/loss,eval/knn/top1\n1,0,3.0,\n2,0,2.0,\n2,0,,0.5\n3,1,1.5,\n2,0,2.5,\n4,1,nan,\n5,1,1.2e\nx"
    )
    curves = read_run(tmp_path).curves
    assert curves["train/loss"].steps == (1, 2, 3, 4)
    assert curves["train/loss"].values[:3] == (3.0, 2.5, 1.5)
    assert curves["eval/knn/top1"].values == (0.5,)


def test_half_written_files_are_named_and_left_out(tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / "summary.json").write_text('{"status": "runn')
    (run_dir / "evaluation.json").write_text("{}")
    (run_dir / "overrides.yaml").write_text("a: b")
    (run_dir / "config.yaml").write_bytes(b"name: \xff")
    picture = run_dir / "pictures" / "views" / "step_00000600.png"
    picture.write_bytes(picture.read_bytes()[:-20])
    run = read_run(run_dir)
    assert (run.summary, run.evaluation, run.command, run.config) == ({}, None, [], {})
    assert [problem.split()[0] for problem in run.problems] == [
        "config.yaml",
        "overrides.yaml",
        "summary.json",
        "evaluation.json",
    ]
    assert list(run.pictures["views"]) == [100, 200, 300, 400, 500]


def test_other_files_among_the_pictures_are_ignored(tmp_path):
    run_dir = write_run(tmp_path / "run", pictures=("views",))
    write_picture(run_dir / "pictures" / "views" / "copy.png")
    (run_dir / "pictures" / "empty").mkdir()
    (run_dir / "pictures" / "notes.txt").write_text("hello")
    assert list(read_run(run_dir).pictures) == ["views"]


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of config.yaml, summary.json, metrics.csv .*holiday.jpg.* Give the run"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such directory. Give the run directory"):
        read_run(tmp_path / "nowhere")


def test_commands_are_written_as_one_types_them_and_mean_the_same():
    words = ["ssl-lab", "pretrain", "encoder.pretrained='my bert'", "seeds=[0,1]", "text='$5'", "a=b c"]
    line = shell_line(words)
    assert line == """ssl-lab pretrain "encoder.pretrained='my bert'" 'seeds=[0,1]' 'text='"'"'$5'"'"'' 'a=b c'"""
    assert shlex.split(line) == words
