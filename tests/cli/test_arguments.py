"""Paths on the command line are taken as they are written, whatever Hydra's grammar makes of their characters."""

import json
import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ssl_lab.cli.arguments import literal, path_of, with_raw_paths
from ssl_lab.cli.main import main
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.settings import compose_settings

ODD = "a=1,b[2] 'c' \"d\" {e: 1}$f ${g}\\ #%(h)é~"
NAMES = [
    *("a=b", "x[1]", "[1]", "a,b", "a b", "  a ", "$x", "${x}", "\\${x}", "${", "{}", "{a: 1}x", "it's", '"q"x', "#h", "50%"),
    *("ü", "-d", "t/", "~b", "123", "1e5", "true", "NULL", "a\\", "a\\'b", "\\", "x:y", "(a)", "'", "*", "a\nb", "'a' 'b'"),
    *("[a", "{", "}", "a]", "!", "&", "|", "<a>", "a;b", ODD),
]  # fmt: skip


@pytest.mark.parametrize("key", ["run", "out", "data.root", "+data.path", "metric.encoder"])
def test_a_path_comes_through_hydras_grammar_as_it_is(key):
    prefix = "run:" if key == "metric.encoder" else ""
    for name in NAMES:
        is_list = name.startswith(("[", "{")) and name.endswith(("]", "}"))
        if not is_list or key in ("out", "metric.encoder"):
            override = OverridesParser.create().parse_override(with_raw_paths([f"{key}={prefix}{name}"])[0])
            cfg = OmegaConf.create({"found": override.value()})
            assert cfg.found == prefix + name
            assert OmegaConf.create(literal(OmegaConf.to_container(cfg, resolve=True))) == cfg


def test_a_run_that_settings_refer_to_is_found_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=1").mkdir()
    (found,) = with_raw_paths(["encoder.codes=run:a=1"])
    assert OverridesParser.create().parse_override(found).value() == f"run:{tmp_path / 'a=1'}"


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("run=[a,b c,'d,e']", ["a", "b c", "d,e"]),
        ("run=[s/x=1,y=2,s/x=2,y=2]", ["s/x=1,y=2", "s/x=2", "y=2"]),  # the first exists
        ("run=null", None),
        ("run=[1]", "[1]"),  # which exists
        ("data.path={train: a=b.txt, test: 'c, d.txt'}", {"train": "a=b.txt", "test": "c, d.txt"}),
        ("data.path=[a=1,b]", ["a=1", "b"]),
        ("run='a b'", "a b"),  # as a quoted value has always been read
        ("data.tokenizer=org/name", "org/name"),
        ("encoder.pretrained=true", True),
        ("encoder.pretrained=a=b", "a=b"),
        ("optim.lr=1e-3", 1e-3),
    ],
)
def test_lists_and_mappings_stay_what_they_are(arg, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for there in ("s/x=1,y=2", "[1]"):
        (tmp_path / there).mkdir(parents=True)
    key = arg.partition("=")[0]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        found = OmegaConf.select(compose(overrides=with_raw_paths([f"+{arg}"])), key)
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == expected


def test_a_sweep_tries_several_paths_and_an_existing_one_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_raw_paths(["data.root=a=1,b"], sweep=True) == ["data.root='a=1',b"]
    assert with_raw_paths(["data.root=choice(a,b)"], sweep=True) == ["data.root=choice(a,b)"]
    assert with_raw_paths(["sweep_dir=a,b"], sweep=True) == ["sweep_dir='a,b'"]
    (tmp_path / "a=1,b").mkdir()
    assert with_raw_paths(["data.root=a=1,b"], sweep=True) == ["data.root='a=1,b'"]


def test_home_and_the_empty_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert path_of(["run=~/runs/a=1"], "run") == tmp_path / "home/runs/a=1"
    assert with_raw_paths(["out=~/f"]) == [f"out={tmp_path}/home/f"]
    (tmp_path / "~").mkdir()
    (tmp_path / "~/f").touch()
    assert with_raw_paths(["out=~/f"]) == ["out='~/f'"]
    with pytest.raises(ValueError, match="run= names no path"):
        with_raw_paths(["run="])


SMALL = ["method=simclr", "trainer=smoke", "data.batch_size=256", "encoder.widths=[8]", "evaluation=none"]


def test_every_command_takes_a_folder_with_an_odd_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *SMALL, f"run_dir={ODD}", "+logger.csv=null"]) == 0, capsys.readouterr().err
    run = tmp_path / ODD
    assert OmegaConf.load(run / "config.yaml").run_dir == str(run)
    assert main(["pretrain", f"run={ODD}"]) == 0
    assert "has finished before" in capsys.readouterr().out
    assert main(["pretrain", f"run={ODD}", "trainer.max_epochs=2", "force=true"]) == 0
    shutil.copytree(run, tmp_path / "other")
    for args in (
        ["evaluate", f"run={ODD}", "evaluation=label_free"],
        ["evaluate", f"run=[{ODD},other]", "evaluation=label_free", "split=val"],
        ["embed", f"run={ODD}/", f"out={ODD}.parquet", "splits=[test]"],
        ["export", f"run={ODD}", "format=torch_export", f"out={ODD}=exported"],
        ["pretrain", *SMALL, "run_dir=x=2", f"ckpt={ODD}/checkpoints/last.ckpt"],
        ["report", ODD],
        ["runs", ODD],
    ):
        assert main(args) == 0, capsys.readouterr().err
    assert {f"{ODD}.parquet", f"{ODD}=exported", "x=2"} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((run / "evaluation.json").read_text())["rows"]
    assert main(["embed", f"run=[{ODD},other]"]) == 1
    assert "ssl-lab embed reads one run directory" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["text", "prompt"])
@pytest.mark.parametrize(
    "text",
    [
        "The [MASK] 'one'",
        'two\nlines "so"\n',
        "${x} \\${y}",
        "end\\",
        "",
        " a ",
        "null",
        "12",
        "a=b,{c: d}",
        "a'\\'b",
        "choice(1,2)",
    ],
)
def test_a_text_is_taken_as_it_is_written(key, text):
    assert compose_settings("sample", ["run=somewhere", f"{key}={text}"])[key] == text


def test_a_text_that_cannot_be_given_is_refused():
    with pytest.raises(ValueError, match=r"Cannot read text=\?\?\?"):
        compose_settings("sample", ["run=somewhere", "text=???"])
