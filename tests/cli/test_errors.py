"""Messages: the user's line of code, the setting that was meant, the package that is too old."""

import functools
import importlib.util
import sys
import textwrap
import warnings
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import ssl_lab
from ssl_lab.cli.build import OF_START
from ssl_lab.cli.errors import explain
from ssl_lab.cli.experiments import drop_replaced, keep_composable
from ssl_lab.cli.instantiate import check_types, instantiate
from ssl_lab.cli.main import main
from ssl_lab.cli.paths import config_dir
from ssl_lab.cli.trust.targets import Trust, trusting


@pytest.fixture
def users_file(tmp_path, monkeypatch):
    """Writes a file of the user's and imports it."""

    def write(text, name="mine"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return write


def explained(function, *args, **settings):
    try:
        function(*args, **settings)
    except Exception as error:
        return explain(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("x, y = {'image': 1, 'index': 2, 'label': 3}", "ValueError: too many values to unpack (expected 2)"),
        ("batch['labels']", "KeyError: 'labels'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("assert not batch", "AssertionError:"),
        ("batch.image", "AttributeError: 'dict' object has no attribute 'image'"),
        ("torch.nn.Linear(3, 4)(torch.zeros(2, 5))", "RuntimeError: "),
        ("torch.nn.Linear(3, 4, widht=2)", "TypeError: "),
        ("raise NotImplementedError", "NotImplementedError:"),
        ("open('/nowhere/file')", "FileNotFoundError: [Errno 2]"),
        ("nt_xent(torch.zeros(2, 3), torch.zeros(3, 3), temperature=1.0)", "ValueError: "),
    ],
)
def test_an_error_in_the_users_file_shows_the_line(line, kind, users_file, tmp_path):
    module = users_file(
        f"""
        import torch
        from ssl_lab.losses.contrastive import nt_xent

        def step(batch={{'image': 1}}):
            {line}
        """
    )
    message = explained(module.step)
    assert message.startswith(kind)
    assert f"{tmp_path / 'mine.py'}, line 6, in step\n    {line}\n" in message


def test_the_users_line_is_found_behind_hydra_and_in_quoted_traces(users_file, tmp_path):
    users_file("class Broken:\n    def __init__(self):\n        [][0]\n")
    with trusting(everything=True):
        message = explained(instantiate, OmegaConf.create({"_target_": "mine.Broken"}))
    assert message.startswith("IndexError: list index out of range\n")
    assert "mine.py, line 3, in __init__\n    [][0]" in message
    quoted = (
        f'Caught KeyError in worker 0.\nOriginal Traceback:\n  File "{tmp_path}/mine.py", line 3, in get\nKeyError: 3'
    )
    message = explain(RuntimeError(quoted))
    assert message.startswith("KeyError: 3") and "mine.py, line 3, in get\n    [][0]" in message
    several = explain(
        RuntimeError(f"{quoted.rpartition(chr(10))[0]}\n    [][0]\n    ^^^^^\nValueError: first\nsecond: line")
    )
    assert several.startswith("ValueError: first\nsecond: line\n  ") and "mine.py, line 3, in get\n    [][0]" in several
    full = explain(OSError(28, "No space left on device", "runs/a/summary.json"))
    assert full == (
        "Cannot write runs/a/summary.json (No space left on device). Make room there, or choose another place."
    )
    died = explain(RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"))
    assert died.startswith("DataLoader worker (pid(s) 12, 13) exited unexpectedly. ") and "data.num_workers" in died
    (tmp_path / "torn.py").write_text("x = (\n")
    message = explained(compile, "x = = 1", str(tmp_path / "torn.py"), "exec")
    assert "torn.py, line 1" in message


def test_the_compiler_says_what_is_wrong_in_the_users_line_and_not_more(users_file, tmp_path):
    module = users_file("""
        import torch

        def step(x):
            return x @ torch.zeros(3, 3)
        """)
    message = explained(torch.compile(module.step, backend="eager"), torch.zeros(2, 8))
    assert "2, 8] X [3, 3]" in message and "compile=false" in message
    assert f"{tmp_path / 'mine.py'}, line 5, in step\n    return x @ torch.zeros(3, 3)\n" in message
    assert len(message.splitlines()) == 4


def test_a_fault_of_ours_says_how_to_report_it():
    error = KeyError("x")
    assert "SSL_LAB_TRACEBACK=1" in explain(error) and "report it" in explain(error)


class Part:
    def __init__(self, live, *, width=1, depth):
        self.width = torch.nn.Linear(1, 1, attn_layer=3)


def test_a_keyword_is_blamed_on_a_setting_only_if_it_is_one(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Part.__module__])
    monkeypatch.setattr(Trust.instance(), "everything", True)
    target = {"_target_": f"{__name__}.Part"}
    node = OmegaConf.create({"a": {**target, "widht": 2}}).a
    with pytest.raises(ValueError, match=r"Part has no setting 'widht', which a.widht sets. Did you mean a.width\?"):
        instantiate(node, _partial_=True)
    with pytest.raises(ValueError, match="Part needs a.depth. Give it on the command line as"):
        instantiate(OmegaConf.create({"a": target}).a, _partial_=True)(3)
    with pytest.raises(ValueError, match="a.live is given by ssl_lab itself"):
        instantiate(OmegaConf.create({"a": {**target, "live": 2, "depth": 1}}).a, _partial_=True)(3)
    with pytest.raises(ValueError, match="too many positional arguments"):
        instantiate(OmegaConf.create({"a": {**target, "depth": 1}}).a, _partial_=True)(3, 4)
    with pytest.raises(TypeError, match="attn_layer"):  # an error within is none of settings
        instantiate(OmegaConf.create({"a": {**target, "depth": 1}}).a, _partial_=True)(3)


@pytest.mark.parametrize("missing", [(), ("datasets", "sacrebleu", "plotly")])
def test_a_package_that_is_too_old_is_named(monkeypatch, missing):
    def version(name):
        if name in missing:
            raise PackageNotFoundError(name)
        return "1.0.19" if name == "timm" else "99"

    extras = ['timm>=1.0.23; extra == "vision"', 'datasets>=4.0; extra == "data"', 'sacrebleu>=2.4; extra == "text"']
    extras += ['ssl_lab[data]; extra == "text"', 'plotly>=6.0; extra == "dashboard"', 'pytest>=100; extra == "dev"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["torch>=2.11", *extras])
    monkeypatch.setattr("importlib.metadata.version", version)
    message = explain(TypeError("VisionTransformer.__init__() got an unexpected keyword argument 'attn_layer'"))
    assert "ssl_lab needs timm>=" in message and "found 1.0.19. Update: pip install 'timm>=" in message
    assert "command" not in message and "99" not in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["encoder=resnet50", "encoder.pretrained=true"],
            "resnet50 has no setting 'pretrained'. encoder=timm encoder.name=resnet50 encoder.pretrained=true has",
        ),
        (["temperature=0.2"], "temperature is set as method.temperature=0.2"),
        (["method.lr=1"], "simclr has no setting 'lr'. lr is set as optim.lr=1."),
        (["encoder.depth=5"], "convnet has no setting 'depth'. encoder=code_gpt_mini, encoder=resnet18"),
        (["metod=byol"], "Did you mean method?"),
        (["views=digits"], "Give it as views@method.views=digits."),
        (["generator=dcgan"], "ssl-lab pretrain has no setting 'generator'"),
        (["method=resnet18"], "resnet18 is a choice of encoder: encoder=resnet18."),
        (["optim=adam"], "Did you mean optim=adamw"),
        (["method="], "There is no method ''"),
        (["trainer=5"], "Cannot read 'trainer=5': a group takes the name of a choice"),
        (["optim.lr.x=3"], "optim.lr is one value"),
        (["optim.lr=a=b"], "quote it twice"),
        (["optim.lr=50%"], "optim.lr should be a number, found"),
        (["seed=1,2"], "add -m. For one list, write seed=[1,2]."),
        (["foo"], "Settings have the form key=value"),
        (["=3"], "Settings have the form key=value"),
        (["~method"], "Leave ~method out"),
        (
            ["experiment=vae_digits", "method=simclr"],
            "Cannot use evaluation=vae of experiment=vae_digits with method=simclr",
        ),
        (
            ["evaluation=nll"],
            "Cannot use evaluation=nll with method=simclr: evaluation.elbo.likelihood reads method.like",
        ),
        (["-x"], "-x is not an option"),
        (["+method.extra=1"], "SimCLR has no setting 'extra', which method.extra sets. Leave method.extra out"),
    ],
)
def test_what_was_meant_is_suggested(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *args, "trainer.max_steps=1", "run_dir=run"]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    key = args[-1].partition("=")[0]
    assert f"Did you mean {key}?" not in errors
    assert not any(phrase in errors for phrase in ("mismatched input", "Traceback", "bug in ssl_lab"))


def test_settings_of_a_replaced_choice_fall_away_with_a_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("ssl_lab.cli.pretraining.begin", lambda cfg, run_dir: seen.append(cfg) or 1 / 0)
    args = ["experiment=simclr_digits", "method=byol", "encoder=resnet18", "method.hidden_dim=32", "run_dir=run"]
    assert main(["pretrain", *args]) == 1
    printed = capsys.readouterr().out
    assert "experiment=simclr_digits sets method.temperature, which method=byol does not have: left out." in printed
    assert "sets encoder.widths, which encoder=resnet18 does not have" in printed
    assert "temperature" not in seen[0].method and seen[0].method.hidden_dim == 32
    assert "widths" not in seen[0].encoder


def test_parts_of_a_replaced_choice_fall_away_with_it():
    """An experiment's views, losses, generators and inner encoders: Hydra alone refuses them where they have no place."""
    for replaced, told in {
        "experiment=simclr_digits method=gan": "sets method.temperature, method.hidden_dim, method.views, which method=gan",
        "experiment=gan_digits method=simclr": "sets method.generator_optim, method.latent_dim, method.ema_decay, which",
        "experiment=dcgan_hinge_fashion_mnist method=simclr": "method.ema_decay, method.loss, which method=simclr",
        "experiment=clip_pairs encoder=resnet18 data.path=x": "sets encoder.text, encoder.image, which encoder=resnet18",
    }.items():
        args = keep_composable("pretrain", replaced.split())
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose("pretrain", args, return_hydra_config=True)
        lines = drop_replaced(cfg, cfg.hydra.runtime.choices, args)
        assert len(lines) == 1 and told in lines[0] and "keeps" not in lines[0], lines
        for name in ("method", "encoder"):
            own = [key for key in cfg[name] if key not in OF_START]
            check_types(OmegaConf.masked_copy(cfg[name], own))  # refuses what the class does not take


def test_warnings_have_one_form_and_come_once(monkeypatch, tmp_path, capsys):
    def warn(args):
        for _ in range(2):
            for message, category, file, line in (
                ("ours\n  twice", UserWarning, ssl_lab.__file__, 1),
                ("of a library", FutureWarning, torch.__file__, 2),
                ("of Python's own", UserWarning, functools.__file__, 995),
                ("of the user's", RuntimeWarning, str(tmp_path / "mine.py"), 3),
            ):
                sys.stderr.write(warnings.formatwarning(message, category, file, line))
        return 0

    (tmp_path / "mine.py").touch()
    monkeypatch.setattr("ssl_lab.cli.main._command", lambda name: warn)
    assert main(["runs"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "ssl-lab: Warning: ours twice",
        "ssl-lab: Warning: of a library (torch)",
        "ssl-lab: Warning: of Python's own",
        f"ssl-lab: Warning: of the user's ({tmp_path / 'mine.py'}, line 3)",
    ]


def test_a_rank_whose_peer_has_ended_points_at_the_message_of_that_one():
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:44221. GLHF!")
    assert explain(lost).startswith("Another rank of this run has ended")
    assert "Connection closed" in explain(RuntimeError("Connection closed by peer"))


def test_what_an_experiment_sets_of_a_replaced_choice_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssl_lab.cli.pretraining.begin", lambda cfg, run_dir: 1 / 0)
    assert main(["pretrain", "experiment=simclr_digits", "method=byol", "optim=lars", "optim.lr=1", "run_dir=run"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "experiment=simclr_digits sets method.temperature, which method=byol does not have: left out. "
        "method.hidden_dim=256 of experiment=simclr_digits also holds with method=byol, unless you set it."
    ]


def test_the_experiments_own_choice_is_no_change_to_be_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssl_lab.cli.pretraining.begin", lambda cfg, run_dir: 1 / 0)
    assert main(["pretrain", "experiment=simclr_digits", "data=digits", "run_dir=run"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["method=mlm"], ""),
        (["method=mlm", "evaluation=features"], ""),
        (["method=byol"], ""),
        (["method=vae"], ""),
        (["experiment=mlm_text", "data.path=x"], ""),
    ],
)
def test_a_default_evaluation_that_no_experiment_of_the_method_has_is_named(args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssl_lab.cli.pretraining.begin", lambda cfg, run_dir: 1 / 0)
    assert main(["pretrain", *args, "run_dir=run"]) == 1
    assert capsys.readouterr().out == said


def test_a_file_in_the_place_of_a_run_directory_is_named(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["pretrain", "method=simclr", "data=digits", f"run_dir={tmp_path}/taken"]) == 1
    assert f"Cannot make the folder {tmp_path}/taken: a file has that name." in capsys.readouterr().err
