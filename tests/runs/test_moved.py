"""A run that an earlier version has left is read as one of today."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from ssl_lab.api.run import open_run
from ssl_lab.cli.main import main
from ssl_lab.cli.trust.targets import closed_list, read_settings
from ssl_lab.runs.moved import MOVED, RENAMED, renamed

STORED = Path(__file__).parent / "stored"
TARGETS = (STORED / "targets_before_rooms.txt").read_text().split()


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(STORED / "before_rooms", tmp_path / "run")


def test_every_class_that_conf_named_before_is_found_and_allowed():
    for target in TARGETS:
        today = renamed([{"_target_": target}])[0]["_target_"]
        module, _, name = today.rpartition(".")
        assert today != target and hasattr(import_module(module), name) and today in closed_list(), target


def test_all_moves_are_needed():
    assert set(MOVED) == {target.rpartition(".")[0] for target in TARGETS if target not in RENAMED}


def test_a_stored_run_is_opened_with_the_features_it_had(run):
    assert "ssl_lab.data.digits.Digits" in (run / "config.yaml").read_text()
    opened = open_run(run)
    method, datamodule = opened.method, opened.data
    assert type(method).__name__ == "SimCLR"
    batch = next(iter(datamodule.eval_dataloader("test")))
    assert method.features(batch).shape == (len(batch["index"]), 4)


def test_a_stored_run_is_judged_and_goes_on(run, capsys):
    assert main(["evaluate", f"run={run}"]) == 0
    assert "SimCLR encoder" in capsys.readouterr().out
    assert main(["pretrain", f"run={run}", "trainer.max_epochs=2", "force=true"]) == 0
    assert read_settings(run / "config.yaml").trainer.max_epochs == 2


def test_a_former_name_gives_the_module_of_today_and_says_so():
    former = next(name for name in MOVED if name.endswith("image_folder"))
    with pytest.warns(FutureWarning, match=f"{former} is now {MOVED[former]}"):
        module = import_module(former)
    assert module is import_module(MOVED[former]) and module.__spec__.name == MOVED[former]
