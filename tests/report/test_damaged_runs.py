"""One damaged run among others costs its own row, which is named, never a page of all."""

import json
import os
import stat

import pytest
from report.fake_runs import simclr_evaluation, write_run

from ssl_lab.cli.main import main
from ssl_lab.report.dashboard.details import read_details
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.site import to_json
from ssl_lab.report.page import write_comparison, write_report

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
DEEP = "[" * 50_000 + "]" * 50_000
TEXTS = {
    "a bomb of aliases": ("config.yaml", BOMB),
    "a deep configuration": ("config.yaml", DEEP),
    "a configuration of digits": ("config.yaml", "seed: 0x" + "f" * 9000),
    "many settings": ("config.yaml", "\n".join(f"k{k}: {k}" for k in range(20_000))),
    "a configuration that is a list": ("config.yaml", "- 1"),
    "a configuration that runs code": ("config.yaml", "a: !!python/object/apply:os.abort []"),
    "a deep summary": ("summary.json", DEEP),
    "a summary of lists": ("summary.json", json.dumps(dict.fromkeys(("status", "seed", "step", "data", "method"), [1]))),
    "a summary of texts": (
        "summary.json",
        json.dumps(
            {"status": "finished", "seed": "x", "metrics": "x", "objective": "x", "versions": "x", "started": "x",
             "samples_per_sec": "x", "wall_time_sec": "x", "num_parameters": "x"}
        ),
    ),
    "numbers of the summary": (
        "summary.json",
        '{"status": "finished", "seed": 1e400, "step": -Infinity, "wall_time_sec": 1e308, "started": '
        '"9999-12-31T23:59:59-14:00", "metrics": {"train/loss": 1e400}, "num_parameters": ' + "9" * 5000 + "}",
    ),
    "digits of the summary": ("summary.json", '{"status": "finished", "seed": ' + "9" * 9000 + "}"),
    "a first year": ("summary.json", '{"status": "running", "started": "0001-01-01T00:00:00+14:00"}'),
    "a heartbeat at the end of time": ("heartbeat.json", '{"time": 1e300, "host": ["x"], "slurm_job_id": {}}'),
    "a deep heartbeat": ("heartbeat.json", DEEP),
    "a deep evaluation": ("evaluation.json", '{"rows": ' + DEEP + "}"),
    "an evaluation without names": ("evaluation.json", '{"rows": [{"metrics": {}}]}'),
    "an evaluation of texts": ("evaluation.json", '{"rows": [{"name": "a", "metrics": {"knn/top1": "high"}}]}'),
    "an evaluation of large numbers": (
        "evaluation.json", '{"rows": [{"name": "a", "metrics": {"knn/top1": 1e308, "linear/top1": -1e400}}]}',
    ),
    "overrides of aliases": ("overrides.yaml", BOMB),
    "overrides of mappings": ("overrides.yaml", "- {a: b}"),
    "a table of one line": ("metrics.csv", "step,a\n" + "1" * (2 << 20)),
    "a table of many columns": ("metrics.csv", "," * 60_000 + "\n1"),
    "a table of large numbers": ("metrics.csv", "step,train/loss\n1e400,1\nnan,1\n1e300,1\n5,1e400\n6,1e308\n7,-1e308\n"),
    "a table with an open quote": ("metrics.csv", 'step,a\n1,"' + "x\n" * 100_000),
    "sentences of numbers": ("pictures/words/step_00000001.json", "[[1, 2]]"),
    "deep sentences": ("pictures/words/step_00000001.json", DEEP),
    "a caption of numbers": ("pictures/views/caption.json", '{"title": 5}'),
    "a picture of text": ("pictures/views/step_00000001.png", "text"),
}  # fmt: skip
SILENT = {"a picture of text", "a first year", "digits of the summary", "a table of large numbers",
          "a heartbeat at the end of time", "an evaluation of large numbers"}  # fmt: skip


def bomb_of_pixels(path):
    """A PNG of a few bytes that says it is of a billion pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1 << 17).to_bytes(4) * 2 + b"\x08\0\0\0\0\0\0\0\0"
    path.write_bytes(head + b"\0\0\0\0IEND\xaeB`\x82")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A sound run beside one of each damage."""
    root = tmp_path_factory.mktemp("many") / "runs"
    write_run(root / "sound", pictures=("views",))
    for name, (file, text) in TEXTS.items():
        path = write_run(root / name, pictures=()) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    secret = root.parent / "secret.json"
    secret.write_text(
        json.dumps({"status": "finished", "method": "SECRET", "rows": [{"name": "SECRET", "metrics": {}}]})
    )
    for file in ("config.yaml", "summary.json", "metrics.csv", "evaluation.json", "heartbeat.json", "overrides.yaml"):
        for kind in ("pipe", "folder", "loop", "endless", "link out"):
            run = write_run(root / f"{kind} {file}", pictures=())
            (run / file).unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(run / file)
            elif kind == "folder":
                (run / file).mkdir()
            else:
                target = {"loop": file, "endless": "/dev/zero", "link out": "../../secret.json"}[kind]
                (run / file).symlink_to(target)
    odd = write_run(root / f"odd {ESCAPE}", method="SimCLR", pictures=())
    summary = json.loads((odd / "summary.json").read_text())
    summary |= {"experiment": ESCAPE, "data": f"{ESCAPE}\n<!-- end -->|<b>", "method": "\ud800" + ESCAPE}
    (odd / "summary.json").write_text(json.dumps(summary))
    evaluation = simclr_evaluation()
    evaluation["rows"][-1]["metrics"][f"knn/{ESCAPE}"] = 1.0
    (odd / "evaluation.json").write_text(json.dumps(evaluation))
    (odd / "overrides.yaml").write_text(json.dumps([f"method={ESCAPE}`"]))
    os.mkfifo(root / "sound" / "pictures" / "views" / "step_00009999.png")
    bomb_of_pixels(root / "sound" / "pictures" / "views" / "step_00009998.png")
    os.mkfifo(root / "sound" / ".lock")
    return root


def steers(text):
    return [char for char in text if ord(char) < 32 and char not in "\n\t" or char in "\x7f\x9b\u202e"]


def test_the_dashboard_shows_the_others_and_names_the_damage(damaged):
    index = RunIndex([damaged])
    assert len(index.entries) == len(TEXTS) + 32 and index.refresh() == 0
    told = index.as_json()
    assert len(to_json(told)) < 2_000_000
    for entry, row in zip(index.entries, told["runs"], strict=True):
        name = entry.facts.path.name
        details = read_details(entry)
        text = to_json(details)
        assert b"SECRET" not in text and not any("cannot be shown" in problem for problem in details["problems"]), name
        wrong = (
            name == "sound"
            or name in TEXTS
            and name not in SILENT
            or name.split()[0] in ("pipe", "folder", "loop", "endless", "link")
        )
        assert bool(details["problems"]) == wrong, (name, details["problems"])
        if name == "sound":
            assert row["value"] == 0.988 and row["damaged"] == 0
    assert b"SECRET" not in to_json(told)


@pytest.mark.parametrize(
    "args",
    [
        ["runs", "--limit", "0"],
        ["runs", "--json"],
        ["runs", "best", "eval/linear/top1", "--limit", "0"],
        ["leaderboard"],
    ],
    ids=" ".join,
)
def test_commands_show_the_others_and_steer_no_terminal(damaged, capsys, monkeypatch, args):
    monkeypatch.setenv("COLUMNS", "250")  # long names of folders are cut to the width
    assert main([*args, str(damaged)]) == 0
    out, err = capsys.readouterr()
    assert not err and not steers(out) and "SECRET" not in out and "sound" in out or args == ["leaderboard"]
    if args[0] == "leaderboard":
        assert "98.8" in out and " damaged (" in out
    elif args[-1] != "--json":
        assert "have files that could not be read, such as " in out
    assert (
        main(["runs", "best", "no/such/metric", str(damaged)] if "best" in args else ["runs", f"{damaged}{ESCAPE}"])
        == 1
    )
    assert not steers(capsys.readouterr().err)


def test_reports_are_written_of_what_is_there(damaged, tmp_path):
    names = ("sound", "a bomb of aliases", "a summary of texts", "numbers of the summary", "a table of large numbers",
             "pipe summary.json", "sentences of numbers", "an evaluation of large numbers")  # fmt: skip
    for name in names:
        assert write_report(damaged / name).is_file()
    assert write_comparison([damaged / name for name in names], tmp_path / "all.html").is_file()


def test_a_block_in_a_file_cannot_be_ended_by_a_run(damaged, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- leaderboard: -->\n<!-- end -->\nrest\n")
    for _ in range(2):
        assert main(["leaderboard", str(damaged), "--update", str(page)]) == 0
    text = page.read_text()
    assert text.count("<!-- end -->") == 1 and text.endswith("<!-- end -->\nrest\n") and not steers(text)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, capsys):
    write_run(tmp_path / "open")
    write_run(tmp_path / "closed").chmod(0)
    assert main(["runs", str(tmp_path)]) == 0
    assert "1 folder cannot be opened" in capsys.readouterr().out
    (tmp_path / "closed").chmod(stat.S_IRWXU)
