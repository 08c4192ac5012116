"""A run directory of a stranger: whatever its configuration names, no command runs or imports it."""

import copy
import importlib
import inspect
import json
import os
import re
import shutil
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path

import hydra
import pytest
import torch
import yaml
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from ssl_lab.api.run import open_run
from ssl_lab.cli import build as config
from ssl_lab.cli import settings as composed
from ssl_lab.cli.arguments import literal
from ssl_lab.cli.main import main
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.run_name import RUN_NAME
from ssl_lab.cli.trust.targets import check_saved_overrides, closed_list, trusting
from ssl_lab.data.image.digits import Digits
from ssl_lab.runs.directory import write_spec

SENTINEL = "module_of_a_stranger"
HARMFUL = {
    # programs and the system
    "os.system": {"command": "touch ran"},
    "os.execv": {"path": "/bin/touch", "argv": ["touch", "ran"]},
    "os.popen": {"cmd": "touch ran"},
    "os.remove": {"path": "kept"},
    "os.putenv": {"name": "A", "value": "b"},
    "posix.system": {"command": "touch ran"},
    "subprocess.run": {"args": ["touch", "ran"]},
    "subprocess.Popen": {"args": ["touch", "ran"]},
    "subprocess.check_output": {"args": ["touch", "ran"]},
    "pty.spawn": {"argv": "sh"},
    "shutil.rmtree": {"path": "."},
    "shutil.copyfile": {"src": "kept", "dst": "ran"},
    "pathlib.Path.unlink": {"self": "kept"},
    "pathlib.Path.write_text": {"self": "ran", "data": ""},
    "webbrowser.open": {"url": "http://localhost"},
    "urllib.request.urlopen": {"url": "http://localhost"},
    "socket.create_connection": {"address": ["localhost", 1]},
    "multiprocessing.Process": {"target": "os.getpid"},
    "ctypes.CDLL": {"name": "ran.so"},
    # Python itself
    "builtins.eval": {"_args_": ["open('ran', 'w')"]},
    "builtins.exec": {"_args_": ["open('ran', 'w')"]},
    "builtins.__import__": {"name": SENTINEL},
    "builtins.compile": {"source": "1", "filename": "x", "mode": "exec"},
    "builtins.open": {"file": "ran", "mode": "w"},
    "builtins.input": {},
    "builtins.getattr": {"_args_": ["a", "b"]},
    "code.interact": {},
    "pickle.loads": {"_args_": ["x"]},
    "pickle.load": {"file": "x"},
    "marshal.loads": {"_args_": ["x"]},
    "shelve.open": {"filename": "ran"},
    "runpy.run_path": {"path_name": f"{SENTINEL}.py"},
    "runpy.run_module": {"mod_name": SENTINEL},
    "importlib.import_module": {"name": SENTINEL},
    "pydoc.locate": {"path": SENTINEL},
    "pkgutil.resolve_name": {"name": SENTINEL},
    "timeit.timeit": {"stmt": "open('ran', 'w')"},
    "cProfile.run": {"statement": "open('ran', 'w')"},
    "logging.config.dictConfig": {"config": {"version": 1}},
    "operator.methodcaller": {"name": "x"},
    "functools.partial": {"func": "os.system"},
    "functools.reduce": {"function": "os.system", "sequence": ["a"]},
    f"{SENTINEL}.Anything": {},
    # libraries that load code
    "torch.load": {"f": "evil.pt", "weights_only": False},
    "torch.jit.load": {"f": "evil.pt"},
    "torch.package.PackageImporter": {"file_or_buffer": "evil.pt"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "x", "source": "local"},
    "torch.hub.download_url_to_file": {"url": "file:///etc/passwd", "dst": "ran"},
    "torch.utils.collect_env.run": {"command": "touch ran"},
    "torch.ops.load_library": {"path": "ran.so"},
    "torch.classes.load_library": {"path": "ran.so"},
    "torch.utils.cpp_extension.load_inline": {"name": "x", "cpp_sources": ""},
    "torch.utils.cpp_extension.load": {"name": "x", "sources": ["x.cpp"]},
    "torch.distributed.run.main": {"args": [f"{SENTINEL}.py"]},
    "torch.save": {"obj": 1, "f": "ran"},
    "torch.nn.Module.load_state_dict": {"self": 1, "state_dict": {}},
    "numpy.load": {"file": "evil.npy", "allow_pickle": True},
    "numpy.save": {"file": "ran", "arr": [1]},
    "numpy.f2py.compile": {"source": ""},
    "pandas.read_pickle": {"filepath_or_buffer": "evil.pt"},
    "pandas.eval": {"expr": "1"},
    "joblib.load": {"filename": "evil.pt"},
    "scipy.io.loadmat": {"file_name": "evil"},
    "transformers.pipeline": {"model": ".", "trust_remote_code": True},
    "transformers.AutoModel.from_pretrained": {"pretrained_model_name_or_path": ".", "trust_remote_code": True},
    "transformers.AutoTokenizer.from_pretrained": {"pretrained_model_name_or_path": ".", "trust_remote_code": True},
    "transformers.dynamic_module_utils.get_class_from_dynamic_module": {"class_reference": "x.X"},
    "datasets.load_dataset": {"path": "pandas", "data_files": "evil.pt", "trust_remote_code": True},
    "datasets.load_from_disk": {"dataset_path": "."},
    "timm.create_model": {"model_name": "hf-hub:a/b", "checkpoint_path": "evil.pt"},
    "timm.models.load_checkpoint": {"model": 1, "checkpoint_path": "evil.pt"},
    "huggingface_hub.snapshot_download": {"repo_id": "a/b"},
    "safetensors.torch.save_file": {"tensors": {}, "filename": "ran"},
    "lightning.pytorch.cli.LightningCLI": {"args": ["fit"]},
    "lightning.pytorch.cli.instantiate_class": {"args": [], "init": {"class_path": "os.system"}},
    "lightning.LightningModule.load_from_checkpoint": {"checkpoint_path": "evil.pt"},
    "hydra.utils.call": {"config": {"_target_": "os.system", "command": "touch ran"}},
    "hydra.utils.instantiate": {"config": {"_target_": "os.system", "command": "touch ran"}},
    "hydra.utils.get_method": {"path": "os.system"},
    "hydra._internal.utils._locate": {"path": SENTINEL},
    "omegaconf.OmegaConf.register_new_resolver": {"name": "x", "resolver": "os.system"},
    "wandb.init": {},
    # the package itself, and what it imports
    "ssl_lab.cli.main.main": {"argv": ["list"]},
    "ssl_lab.api.run.open_run": {"run_dir": ".", "trust": True},
    "ssl_lab.cli.instantiate.instantiate": {"node": {"_target_": "os.system", "command": "touch ran"}},
    "ssl_lab.data.store.write_atomically": {"path": "ran", "write": "os.remove"},
    "ssl_lab.runs.directory.write_json": {"path": "ran", "value": 1},
    "ssl_lab.runs.directory.subprocess.run": {"args": ["touch", "ran"]},
    "ssl_lab.export.transformers.write_folder": {"out": "ran", "write": "os.remove"},
    "ssl_lab.data.text.encode.np.load": {"file": "evil.npy", "allow_pickle": True},
    "ssl_lab.engine.checkpoints.checkpoint.torch.load": {"f": "evil.pt", "weights_only": False},
    "ssl_lab.engine.checkpoints.checkpoint.pickle.loads": {"_args_": ["x"]},
    "ssl_lab.engine.checkpoints.signals.os.system": {"command": "touch ran"},
    "hydra_plugins.ssl_lab_slurm.SlurmLauncher": {"wait": True, "setup": ["touch ran"]},
}
PLACES = (
    *("data", "encoder", "method", "optim", "method.views", "trainer", "trainer.plugins", "callbacks.x", "logger.x"),
    *("evaluation.x", "launcher", "hydra.sweeper", "anything", "deep.er.and.deeper", "encoder.options", "data.options"),
)
COMMANDS = ("evaluate", "embed", "export", "sample", "reconstruct", "interpolate", "finetune", "predict", "neighbours")
FORBIDDEN = {
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rmdir", "os.putenv", "subprocess.Popen"),
    *("shutil.rmtree", "pty.spawn", "webbrowser.open", "socket.connect", "urllib.Request", "pickle.find_class"),
    "builtins.input",
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_watch = {"on": False, "seen": []}


def _is_own(path):
    """A report or the hidden file that becomes one, a lock, or a nameless file that tries whether a folder takes any."""
    return os.path.isdir(path) or re.search(r"run/\.?report\.html[^/]*$|/\.lock$", path) is not None


def _hook(event, args):
    if (
        _watch["on"]
        and not (event in ("open", "os.remove") and _is_own(str(args[0])))
        and not (event in ("os.putenv", "os.unsetenv") and RUN_NAME in str(args[0]))  # names a directory by the time
        and (
            event in FORBIDDEN
            or (event == "ctypes.dlopen" and "ran" in str(args))
            or (event == "import" and str(args[0]).startswith(SENTINEL))
            or (
                event == "open"
                and isinstance(args[1], str)
                and set(args[1]) & set("wax+")
                and "/dev/" not in str(args[0])
            )
        )
    ):
        _watch["seen"].append((event, str(args)[:200]))


sys.addaudithook(_hook)


@contextmanager
def nothing_runs():
    before = set(sys.modules)
    _watch.update(on=True, seen=[])
    try:
        yield
    finally:
        _watch["on"] = False
    assert not _watch["seen"]
    roots = {target.partition(".")[0] for target in HARMFUL} - {"torch", "ssl_lab", "hydra", "numpy"}
    new = {name for name in set(sys.modules) - before if name.partition(".")[0] in roots}
    assert not {name for name in new if name in HARMFUL or any(t.rpartition(".")[0] == name for t in HARMFUL)}, new


@pytest.fixture(scope="module")
def settings():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        words = ["encoder.widths=[8]", "run_dir=runs/x", "evaluation=none", "pictures_every_n_epochs=null"]
        cfg = hydra.compose("pretrain", words)
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.fixture
def folder(tmp_path, monkeypatch, settings):
    """A folder with a stranger's run, a module of theirs, a pickle, and commands that are composed once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{SENTINEL}.py").write_text("open('ran', 'w')\n")
    (tmp_path / "kept").write_text("")
    run = tmp_path / "run"
    run.mkdir()
    write_spec(run, Digits().spec)
    (run / "overrides.yaml").write_text("[method=simclr]\n")
    return tmp_path


@pytest.fixture
def composed_once(monkeypatch):
    known = {}
    compose = composed.compose

    def cached(name, overrides, **settings):
        key = (name, *(word for word in overrides if not word.startswith(("run=", "metric.encoder="))))
        if key not in known:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                known[key] = compose(name, overrides, **settings)
        cfg = copy.deepcopy(known[key])
        for word in overrides:
            if word.startswith(("run=", "metric.encoder=")):
                OmegaConf.update(cfg, word.partition("=")[0], word.partition("=")[2])
        return cfg

    monkeypatch.setattr(composed, "compose", cached)
    monkeypatch.setattr(composed, "initialize_config_dir", lambda *args, **settings: nullcontext())


def place(settings, where, node):
    changed = copy.deepcopy(settings)
    below = changed
    *path, last = where.split(".")
    for name in path:
        if not isinstance(below.get(name), dict):
            below[name] = {}
        below = below[name]
    below[last] = [1, {"x": [node]}] if where in ("trainer.plugins", "anything") else node
    return changed


def write(run, settings):
    (run / "config.yaml").write_text(yaml.safe_dump(literal(settings)))


def test_nothing_that_a_run_names_is_run_or_imported(folder, settings, composed_once, capsys, monkeypatch):
    """Each target by two commands and in Python, each command on at least an eighth of them, in all places."""
    assert len(HARMFUL) >= 60
    run = folder / "run"
    settings = {name: settings[name] for name in ("seed", "data", "encoder", "method", "optim")}
    extra = {"embed": ["out=x.parquet"], "export": ["format=hf", "out=x"], "finetune": ["data=digits", "run_dir=f"]}
    extra |= {"predict": ["input=kept"], "neighbours": ["query=kept"]}
    monkeypatch.setattr("ssl_lab.cli.commands.finetune._agreed_run_dir", lambda cfg, args: Path("f"))
    met = Counter()
    for name in COMMANDS:  # the imports of each
        write(run, place(settings, "data", {"_target_": "os.system"}))
        assert main([name, "run=run", *extra.get(name, [])]) == 1
    for number, (target, arguments) in enumerate(HARMFUL.items()):
        where = PLACES[number % len(PLACES)]
        write(run, place(settings, where, {"_target_": target, **arguments}))
        capsys.readouterr()
        with nothing_runs():
            asked = [COMMANDS[(2 * number + step) % len(COMMANDS)] for step in (0, 1)]
            met.update(asked)
            for name in asked:
                assert main([name, "run=run", *extra.get(name, [])]) == 1, (target, name)
            with pytest.raises(ValueError, match="_target_ names|_args_ has no meaning"):
                open_run(run)
        told = capsys.readouterr().err.splitlines()
        assert len(told) == len(asked), told
        assert all("run/config.yaml: " in line and where.split(".")[0] in line for line in told), told
        assert all(f"names {target}" in line or "_args_" in line for line in told), told
    assert min(met[name] for name in COMMANDS) >= len(HARMFUL) / 8
    assert not (folder / "ran").exists() and (folder / "kept").exists()


@pytest.mark.parametrize(
    "target", ["os.system", f"{SENTINEL}.Anything", "ssl_lab.engine.checkpoints.signals.os.system"]
)
def test_a_run_that_is_named_by_settings_is_read_alike(target, folder, settings, capsys, monkeypatch):
    run = folder / "run"
    write(run, place(settings, "method", {"_target_": target, "command": "touch ran"}))
    with nothing_runs():
        for source in ("encoder.codes=run:run", "+evaluation.x.encoder=run:run"):
            cfg = OmegaConf.create({"encoder": {"_target_": "ssl_lab.encoders.code_gpt.CodeGPT", "codes": "run:run"}})
            with pytest.raises(ValueError, match="config.yaml: method._target_ names"):
                if source.startswith("encoder"):
                    config.build_encoder(cfg.encoder, Digits().spec)
                else:
                    node = {"x": {"_target_": "ssl_lab.evaluation.samples.quality.SampleQuality", "encoder": "run:run"}}
                    config.build_protocols(OmegaConf.create(node), config.build_data)
        for words in (["report", "run"], ["runs", "."], ["leaderboard", "."]):
            main(words)
    if importlib.util.find_spec("plotly"):
        main(["dashboard", ".", "--out", "site"])
        assert SENTINEL not in (folder / "site/index.html").read_text()
    write(run, settings)
    (folder / "other").mkdir()
    write_spec(folder / "other", Digits().spec)
    write(folder / "other", place(settings, "method", {"_target_": target, "command": "touch ran"}))
    monkeypatch.setattr(config, "find_checkpoint", lambda path: path / "checkpoints/last.ckpt")
    monkeypatch.setattr(config, "load_weights", lambda method, path: None)
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    capsys.readouterr()
    with nothing_runs():
        words = ["evaluate", "run=run", "evaluation=samples", "metric.encoder=run:other"]
        assert main(words) == 1
    assert "other/config.yaml: method._target_ names" in capsys.readouterr().err
    assert not (folder / "ran").exists() and SENTINEL not in sys.modules


@pytest.mark.parametrize(
    "saved",
    [
        ["hydra.callbacks.x._target_=os.system"], ["+hydra.callbacks={x: {_target_: os.system}}"], ["hydra/launcher=evil"],
        ["--config-dir=evil"], ["--multirun"], ["+evil@hydra.callbacks=x"], ["hydra.job.env_set.LD_PRELOAD=x"],
        ["+hydra.searchpath=[file:///tmp]"], ["experiment=../../../evil"], ["trust=true"], [{"a": 1}], {"a": 1}, [["a=b"]],
        ["method._target_=os.system", "+method.command='touch ran'"], ["optim={_target_: os.system, command: touch ran}"],
        ["+optim.x='${oc.create:\"{_target_: os.system, command: touch ran}\"}'"],
    ],
    ids=str,
)  # fmt: skip
def test_saved_overrides_say_what_a_run_is_and_nothing_else(saved, folder, settings, capsys):
    write(folder / "run", settings)
    (folder / "run/overrides.yaml").write_text(yaml.safe_dump(saved))
    with trusting():
        assert main(["pretrain", "run=run", "data.batch_size=64", "trainer=smoke", "resume=auto", "force=true"]) == 1
    assert not (folder / "ran").exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "method: ${oc.env:HOME}\n", "a: {b: ['${oc.create:x}']}\n", "${x}: 1\n", "method: !!python/name:os.system ''\n",
        "method: !!python/object/apply:os.system ['touch ran']\n", "a: &a [*a]\n", "[1, 2]\n", "method: [\n", "\0\n",
        "method: {_target_: ''}\n", "method: {_target_: null}\n", "method: {_target_: [os.system]}\n",
        "method: {_target_: {_target_: os.system}}\n", "method: {_target_: os}\n", "method: {_target_: 'os.system '}\n",
        "method: {_target_: ssl_lab.methods.simclr.SimCLR, _args_: [1]}\n",
        "method: {_target_: ssl_lab.methods.simclr..SimCLR}\n",
        "method: {_target_: ssl_lab.methods.simclr.SimCLR.load_from_checkpoint}\n", f"a: {'[' * 5000}{']' * 5000}\n", BOMB,
    ],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_a_configuration_that_is_no_plain_data_is_refused_in_one_line(text, folder, settings, capsys):
    (folder / "run/config.yaml").write_text(text)
    with nothing_runs(), pytest.raises(ValueError, match=r"run.config\.yaml"):
        config.read_setup(folder / "run")
    assert not (folder / "ran").exists()


def test_runs_that_name_each_other_end_with_a_message(folder, settings):
    write(
        folder / "run",
        place(settings, "encoder", {"_target_": "ssl_lab.encoders.code_gpt.CodeGPT", "codes": "run:run"}),
    )
    (folder / "run/checkpoints").mkdir()
    torch.save({"state_dict": {}}, folder / "run/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match="names itself"):
        config.load_run(folder / "run")


def test_the_closed_list_holds_classes_and_losses_of_their_own_modules():
    """No re-exported module, no function but the adversarial losses; each takes no more than settings."""
    for target in sorted(closed_list()):
        if target.startswith("optuna.") and importlib.util.find_spec("optuna") is None:
            continue
        module, name = target.rsplit(".", 1)
        found = getattr(importlib.import_module(module), name)
        assert inspect.isclass(found) or module == "ssl_lab.losses.adversarial", target
        assert not target.startswith("ssl_lab.") or found.__module__ == module, target
        assert target.split(".")[0] in ("ssl_lab", "lightning", "optuna", "torch"), target
    assert {target for target in closed_list() if target.startswith("torch.")} == {"torch.nn.Identity"}
    assert not any(target.startswith(("ssl_lab.cli", "ssl_lab.report", "hydra")) for target in closed_list())


def test_a_trusted_run_is_used(folder, settings, capsys):
    """What was refused is imported once it is trusted, from the folder where the command was started."""
    (folder / f"{SENTINEL}.py").write_text("from ssl_lab.methods.simclr import SimCLR as Anything\n")
    write(folder / "run", place(settings, "method", {**settings["method"], "_target_": f"{SENTINEL}.Anything"}))
    with pytest.raises(ValueError, match="add trust=true"):
        open_run(folder / "run")
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        open_run(folder / "run", trust=True)
    assert f"uses of this folder: {SENTINEL}.py" in capsys.readouterr().err
    sys.modules.pop(SENTINEL, None)
    assert json.loads((folder / "run/spec.json").read_text())["_target_"].endswith("ImageSpec")
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize("place", [{"save_dir": "other"}, {"save_dir": "run"}])
def test_a_logger_deletes_no_results(place, tmp_path, monkeypatch):
    """Lightning's begins by deleting the ``metrics.csv`` that is there."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / place["save_dir"] / "metrics.csv"
    file.parent.mkdir()
    file.write_text("step\n1\n")
    target = "lightning.pytorch.loggers.CSVLogger"
    cfg = {"trainer": {"sync_batchnorm": False}, "callbacks": {}}
    cfg["logger"] = {"x": {"_target_": target, "name": "", "version": "", **place}}
    with pytest.raises(ValueError, match="would delete"):
        config.build_trainer(OmegaConf.create(cfg), Path("run"), progress_bar=False)
    assert file.read_text() == "step\n1\n"


def test_saved_overrides_read_nothing_of_the_machine(tmp_path):
    """A variable would go into ``config.yaml``, into names of files, or to a server."""
    for text in (
        "data.path=${oc.env:SECRET}",
        "optim.lr=${oc.decode:${oc.env:A,1}}",
        "+x={y: '${oc.env:SECRET}'}",
        "a=${b.${c}}",
    ):
        with pytest.raises(ValueError, match="would read something of this machine"):
            check_saved_overrides([text], "overrides.yaml")
        check_saved_overrides([text], "overrides.yaml", replaced={text.partition("=")[0].lstrip("+")})
        with trusting(everything=True):
            check_saved_overrides([text], "overrides.yaml")
    check_saved_overrides(["encoder.widths=${data.sizes}", "optim.lr=1e-3"], "overrides.yaml")


def test_settings_are_not_read_through_a_link_that_leads_out(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("key: 1\n")
    (tmp_path / "run/config.yaml").symlink_to("../secret")
    with pytest.raises(ValueError, match="link that leads out of run"):
        config.read_setup(tmp_path / "run")
