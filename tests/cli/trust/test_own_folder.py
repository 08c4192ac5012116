"""Code and settings in the folder from which the command is started: used if the command names them, never by being there."""

import importlib.util
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main
from ssl_lab.cli.paths import choices, config_dir, own_config_dir
from ssl_lab.cli.trust.own_code import forget_working_folder, provide
from ssl_lab.cli.trust.targets import Trust, trusting

OWN, HELPER = "own_head_only", "own_helper_of_it"
SMALL = ["encoder.widths=[8]", "data.batch_size=64", "evaluation=none", "trainer=smoke"]
STRAY = "open('ran', 'a').write(__name__)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / f"conf/method/{OWN}.yaml").write_text(f"# Mine\n_target_: {OWN}.Mine\nscale: 2.0\n")
    (tmp_path / "conf/method/simclr.yaml").write_text("# Not this one\n_target_: nowhere.SimCLR\n")
    (tmp_path / f"{HELPER}.py").write_text("def square(x):\n    return x.square()\n")
    (tmp_path / f"{OWN}.py").write_text(
        f"from {HELPER} import square\n\nfrom ssl_lab.methods.base import Method\n\n\n"
        "class Mine(Method):\n"
        "    def __init__(self, encoder, optim, *, scale: float = 2.0):\n        super().__init__(encoder, optim)\n"
        "        self.scale = scale\n\n    def training_step(self, batch, batch_idx):\n"
        "        return self.log_losses(square(self.scale - self.encoder.embed(batch).mean()))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in (OWN, HELPER):
        sys.modules.pop(name, None)


def refused(capsys, *args, said):
    assert main(args) == 1
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err, err
    assert OWN not in sys.modules


def test_a_method_of_ones_own_trains_is_listed_and_goes_on_where_the_command_names_it(folder, capsys):
    run = folder / "runs/mine"
    assert main(["list", "methods"]) == 0
    assert f"{OWN}  " in capsys.readouterr().out
    assert main(["pretrain", f"method={OWN}", *SMALL, f"run_dir={run}"]) == 0
    said = capsys.readouterr().err
    assert said.count("uses of this folder:") == 1
    assert f"uses of this folder: {OWN}.py, {HELPER}.py, conf/method/{OWN}.yaml\n" in said
    assert main(["pretrain", f"run={run}", f"method={OWN}"]) == 0
    assert main(["pretrain", f"run={run}", "trust=true"]) == 0
    assert capsys.readouterr().out.count("has finished before") == 2
    assert str(folder) not in sys.path

    for name in (OWN, HELPER):
        sys.modules.pop(name, None)
    refused(capsys, "embed", f"run={run}", f"out={folder / 'x.parquet'}", said=f"method._target_ names {OWN}.Mine")
    refused(capsys, "pretrain", f"run={run}", said=f"_target_ names {OWN}.Mine")
    assert main(["embed", f"run={run}", f"out={folder / 'x.parquet'}", "trust=true"]) == 0
    assert f"uses of this folder: {OWN}.py, {HELPER}.py" in capsys.readouterr().err


def test_what_lies_there_is_not_run(folder, capsys):
    """Plugins, presets, optional libraries, Python's own hooks: each would leave a file."""
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins/evil.py").write_text(STRAY)
    for name in ("librosa", "wandb", "pandas", "sitecustomize", "usercustomize", OWN):
        (folder / f"{name}.py").write_text(STRAY)
    (folder / "own.pth").write_text("import os; open('ran', 'a')\n")
    (folder / "conf/local").mkdir()
    (folder / "conf/local/default.yaml").write_text(f"callbacks:\n  mine:\n    _target_: {OWN}.Mine\n")
    assert main(["list", "methods"]) == 0
    assert OWN in completions(f"ssl-lab pretrain method={OWN[:5]}")[0]
    assert main(["pretrain", "--help"]) in (0, 1)
    refused(capsys, "pretrain", *SMALL, said="conf/local/default.yaml: callbacks.mine._target_ names")
    (folder / "conf/local/default.yaml").write_text("seed: 5\n")
    assert main(["pretrain", *SMALL, f"run_dir={folder / 'run'}"]) == 0
    assert "uses of this folder: conf/local/default.yaml\n" in capsys.readouterr().err
    assert not (folder / "ran").exists()


def test_a_fresh_process_takes_no_library_from_the_folder(folder):
    """The script and ``python -m``, which puts the folder first on the path of imports."""
    for name in ("librosa", "soundfile", "omegaconf_stray", "yaml_stray"):
        (folder / f"{name}.py").write_text(STRAY)
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins/evil.py").write_text(STRAY)
    code = [sys.executable, "-m", "ssl_lab.cli.main", "pretrain", "--cfg", "job", "--package", "optim"]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("experiment", f"# @package _global_\nmethod:\n  _target_: {OWN}.Mine\n", f"method._target_ names {OWN}.Mine"),
        ("experiment", f"# @package _global_\ndefaults:\n- override /method: {OWN}\n", f"_target_ names {OWN}.Mine"),
        ("experiment", "# @package _global_\nmethod: \"${oc.create:'{_target_: os.system}'}\"\n", "could make new settings"),
        ("experiment", "# @package _global_\na: oc.create\nmethod: \"${${a}:'{}'}\"\n", "could make new settings"),
        ("experiment", "# @package _global_\nhydra: {callbacks: {a: {_target_: os.system}}}\n", "sets hydra.callbacks"),
        ("experiment", "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: x.so}}}\n", "sets hydra.job"),
        ("experiment", "# @package _global_\nhydra: {launcher: {setup: [touch ran]}}\n", "sets hydra.launcher"),
        ("experiment", "# @package _global_\nhydra: {sweeper: {params: {hydra.job.env_set.A: b}}}\n", "params.hydra"),
        ("experiment", "# @package hydra.callbacks\na: {_target_: os.system}\n", "sets hydra"),
        ("experiment", "defaults:\n- /method@hydra.callbacks: mlm\n", "sets method@hydra.callbacks"),
        ("experiment", "defaults:\n- /../../../evil@_global_\n", "lead out of conf/"),
        ("experiment", "# @package _global_\noptim: {_target_: ssl_lab.optim.AdamW, _args_: [1]}\n", "_args_ has no meaning"),
        ("experiment", "# @package _global_\nmethod: {x: [1, {y: [{_target_: os.system}]}]}\n", "[1].y[0]._target_ names"),
        ("experiment", "# @package _global_\nmethod: {_target_: [os, system]}\n", "should be the dotted name"),
        ("method", "_target_: os.system\n", "names os.system"),
        ("method", "_target_: subprocess.run\n", "names subprocess.run"),
        ("method", "_target_: ssl_lab.data.store.shutil.rmtree\n", "names ssl_lab.data.store.shutil.rmtree"),
        ("experiment", "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
         + "".join(f"{n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in zip("bcdefgh", "cdefghi", strict=True)),
         "cannot be read"),
    ],
)  # fmt: skip
def test_presets_that_are_passed_around_are_data(name, text, said, folder, capsys):
    (folder / f"conf/{name}").mkdir(exist_ok=True)
    (folder / f"conf/{name}/given.yaml").write_text(text)
    refused(capsys, "pretrain", f"{name}=given", *SMALL, f"run_dir={folder / 'run'}", said=said)
    assert not (folder / "run").exists()


def test_an_experiment_of_ones_own_trains_the_method_that_the_command_names_too(folder, capsys):
    (folder / "conf/experiment").mkdir()
    (folder / "conf/experiment/given.yaml").write_text(
        f"# @package _global_\ndefaults:\n- override /method: {OWN}\nmethod: {{scale: 3.0}}\n"
    )
    assert main(["pretrain", "experiment=given", f"method={OWN}", *SMALL, f"run_dir={folder / 'a'}"]) == 0
    assert main(["pretrain", "experiment=given", "trust=true", *SMALL, f"run_dir={folder / 'b'}"]) == 0


def test_arguments_that_lead_elsewhere_are_refused(folder, capsys):
    refused(capsys, "pretrain", "experiment=../../evil", said="leads out of conf/experiment")
    refused(capsys, "pretrain", f"hydra.searchpath=[file://{folder}]", said="hydra.searchpath= is not taken")
    refused(capsys, "pretrain", "--experimental-rerun=config.pickle", said="--experimental-rerun is not an option")
    refused(capsys, "pretrain", f"--config-dir={folder}", said="--config-dir is not an option")
    refused(capsys, "pretrain", "trust=maybe", said="Cannot read trust=maybe")


def test_a_class_that_is_typed_is_meant(folder):
    with trusting([f"+callbacks.mine._target_={OWN}.Mine", "-m", "+a={b:[{_target_:x.Y}]}", "method._target_=p.A,p.B"]):
        assert Trust.instance().targets == {f"{OWN}.Mine", "x.Y", "p.A", "p.B"}
    assert not Trust.instance().targets and not Trust.instance().everything


def test_own_files_never_stand_for_what_is_installed(folder):
    for name in ("yaml", "json", "filelock"):
        (folder / f"{name}.py").write_text(STRAY)
        assert provide(f"{name}.Anything") == []
    assert provide(f"{OWN}.Mine") == [f"{OWN}.py", f"{HELPER}.py"]
    assert importlib.util.find_spec(OWN).origin == str(folder / f"{OWN}.py")


def test_the_folder_is_taken_off_the_path_of_python_m_alone(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    forget_working_folder()
    assert sys.path[0] == str(folder)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", object())
    forget_working_folder()
    assert str(folder) not in sys.path


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
    assert f"{OWN}.py" in capsys.readouterr().err


def test_the_packages_own_folder_is_not_taken_twice(monkeypatch):
    monkeypatch.chdir(config_dir().parent)
    assert own_config_dir() is None
