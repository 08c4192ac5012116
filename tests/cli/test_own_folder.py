"""Code and settings in the folder from which the command is started."""

import sys

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.main import main
from ssl_lab.cli.paths import choices, config_dir, own_config_dir

OWN = "own_head_only"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / f"conf/method/{OWN}.yaml").write_text(f"# Mine\n_target_: {OWN}.Mine\nscale: 2.0\n")
    (tmp_path / "conf/method/simclr.yaml").write_text("# Not this one\n_target_: nowhere.SimCLR\n")
    (tmp_path / f"{OWN}.py").write_text(
        "from ssl_lab.methods.base import Method\n\n\nclass Mine(Method):\n    modality = 'image'\n\n"
        "    def __init__(self, encoder, optim, *, scale: float = 2.0):\n        super().__init__(encoder, optim)\n"
        "        self.scale = scale\n\n    def training_step(self, batch, batch_idx):\n"
        "        return self.log_losses((self.scale - self.encoder.embed(batch).mean()).square())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    sys.modules.pop(OWN, None)


def test_a_method_of_ones_own_trains_is_listed_and_goes_on(folder, capsys):
    run = folder / "runs/mine"
    assert main(["list", "methods"]) == 0
    assert f"{OWN}  " in capsys.readouterr().out
    small = ["encoder.widths=[8]", "data.batch_size=64", "evaluation=none", "trainer=smoke", f"run_dir={run}"]
    assert main(["pretrain", f"method={OWN}", *small]) == 0
    assert main(["pretrain", f"run={run}"]) == 0
    assert "has finished before" in capsys.readouterr().out


def test_names_of_the_package_stay_its_own(folder):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert compose("pretrain", ["method=simclr"]).method._target_ == "ssl_lab.methods.simclr.SimCLR"
    assert choices("method")["simclr"] != "Not this one"


def test_other_hydra_applications_do_not_see_it(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/app.yaml").write_text("defaults: [method: null]\n")
    with initialize_config_dir(str(tmp_path / "other"), version_base="1.3"), pytest.raises(Exception, match=OWN):
        compose("app", [f"method={OWN}"])


def test_a_module_that_is_not_there_is_named_with_what_to_do(folder, capsys):
    (folder / f"{OWN}.py").unlink()
    assert main(["pretrain", f"method={OWN}", "trainer=smoke"]) == 1
    assert f"Start the command in the folder that holds {OWN}.py" in capsys.readouterr().err


def test_the_packages_own_folder_is_not_taken_twice(monkeypatch):
    monkeypatch.chdir(config_dir().parent)
    assert own_config_dir() is None
