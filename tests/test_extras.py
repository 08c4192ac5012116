import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from itertools import chain
from pathlib import Path

import pytest
import torch
from forked import Fork
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical
from without import run_without

from ssl_lab.encoders.vit import ViT
from ssl_lab.extras import ALONE, EXTRAS, MissingPackageError, module_of, needed_to, require
from ssl_lab.modalities.image import ImageSpec

VIT = ViT(ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.5,)), patch_size=2, embed_dim=128, depth=6, num_heads=4)
ROOT = Path(__file__).parents[1]
DIGITS = ["experiment=simclr_digits", "trainer=smoke", "run_dir=run"]
TRANSLATION = ["run=null", "encoder=bert_tiny", "task=translation", "data=parallel_text", "data.path=pairs.csv"]
TRANSLATION += ["data.source=a", "data.target=b", "data.vocab_size=300", "data.max_length=16", "data.batch_size=4"]
ADAPTED = ["encoder=vit_mae_mini", "encoder.weights=vit.pt", "lora.rank=4"]
CASES = [
    ("vision", "timm", "use a vision transformer", ["pretrain", "experiment=mae_digits"]),
    ("vision", "timm", "use a model of timm", ["pretrain", *DIGITS, "encoder=timm", "encoder.name=resnet18"]),
    ("vision", "timm", "export format=timm", ["export", "run=run", "out=out", "format=timm"]),
    ("data", "datasets", "read tables, text files and data sets of the hub", ["pretrain", "data=hub_text", "data.path=x"]),
    ("data", "pyarrow", "read tables, text files and data sets of the hub", ["pretrain", "data=hub_images", "data.path=x"]),
    ("data", "pyarrow", "write out=features.parquet", ["embed", "run=run", "out=features.parquet"]),
    ("text", "sacrebleu", "score translations (task=translation)", ["finetune", *TRANSLATION]),
    ("tensorboard", "tensorboard", "log to TensorBoard (logger=tensorboard)", ["pretrain", *DIGITS, "logger=all"]),
    ("vision", "timm", "use optim=timm", ["pretrain", *DIGITS, "optim=timm", "optim.name=lion"]),
    ("mlflow", "mlflow", "log to MLflow (logger=mlflow)", ["pretrain", *DIGITS, "logger=mlflow"]),
    ("lora", "peft", "train adapters (lora.rank)", ["pretrain", *DIGITS, *ADAPTED]),
    ("fid", "torch_fidelity", "compute FID", ["pretrain", "experiment=gan_digits", "evaluation=fid"]),
    ("sweep", "optuna", "use hydra/sweeper=optuna", ["pretrain", "-m", *DIGITS, "sweep=simclr"]),
    ("sweep", "hydra_plugins.hydra_joblib_launcher", "use hydra/launcher=joblib",
     ["pretrain", "-m", *DIGITS, "hydra/launcher=joblib", "seed=1,2"]),
    ("ray", "hydra_plugins.hydra_ray_launcher", "use hydra/launcher=ray",
     ["pretrain", "-m", *DIGITS, "hydra/launcher=ray", "seed=1,2"]),
    ("onnx", "onnxscript", "export format=onnx", ["export", "run=run", "out=out", "format=onnx"]),
    ("dashboard", "plotly", "draw the dashboard", ["dashboard", "."]),
    ("slurm", "hydra_plugins.hydra_submitit_launcher", "use hydra/launcher=slurm",
     ["pretrain", "-m", *DIGITS, "hydra/launcher=slurm", "seed=1,2"]),
]  # fmt: skip

BROUGHT = {"packaging": "transformers", "markupsafe": "jinja2", "tqdm": "transformers", "joblib": "scikit-learn"}
"""Packages that come with another one, and are used beside it."""


@pytest.mark.parametrize(("extra", "module", "use", "args"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_a_missing_package_is_one_message(extra, module, use, args, tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b\n" + "".join(f"one {k},two {k}\n" for k in range(60)))
    torch.save(VIT.state_dict(), tmp_path / "vit.pt")
    process = Fork(run_without, module, args, cwd=tmp_path)
    _, told = process.communicate(120)
    package = next(each for each in EXTRAS[extra] if module_of(each) == module)
    found = f"Cannot {use}: the package {package} is not installed."
    assert told == f'ssl-lab: {found} Install it by: pip install "ssl_lab[{extra}]".\n'
    assert process.returncode == 1
    assert not (tmp_path / "out").exists()


def test_the_extras_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {name: list(map(Requirement, lines)) for name, lines in project["optional-dependencies"].items()}
    found = {name: tuple(need.name for need in needs if need.name != "ssl_lab") for name, needs in listed.items()}
    assert {name: found[name] for name in found if name not in ("all", "docs", "dev")} == EXTRAS
    (everything,) = listed["all"]
    assert everything.extras == set(EXTRAS) - {"ray"}
    core = {Requirement(line).name for line in project["dependencies"]}
    assert not core & {package for packages in EXTRAS.values() for package in packages}


def imported(path):
    """Names of the packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_every_import_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    declared = {canonical(Requirement(line).name) for line in lines}
    for package, home in BROUGHT.items():
        assert canonical(home) in declared and package in {Requirement(line).name.lower() for line in requires(home)}
        declared.add(package)
    optional = {module_of(package) for package in (*ALONE, *chain(*EXTRAS.values()))}
    homes = packages_distributions()
    for folder in ("ssl_lab", "hydra_plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imported(path) - set(sys.stdlib_module_names) - {"ssl_lab", "hydra_plugins", *optional}:
                assert {canonical(home) for home in homes.get(name, ())} & declared, f"{path} imports {name}"


def test_an_error_inside_a_package_is_none_of_ours(tmp_path, monkeypatch):
    (tmp_path / "plotly").mkdir()
    (tmp_path / "plotly" / "__init__.py").write_text("import a_package_that_plotly_needs\n")
    monkeypatch.delitem(sys.modules, "plotly", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_plotly_needs") as raised, needed_to("draw"):
        import plotly  # noqa: F401
    assert not isinstance(raised.value, MissingPackageError)


def test_several_missing_packages_are_named_together(monkeypatch):
    for name in EXTRAS["onnx"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingPackageError, match="packages onnx, onnxscript and onnxruntime are not installed. Install"
    ):
        require("export", *EXTRAS["onnx"])


def test_the_page_on_installation_lists_every_extra():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "platforms.md").read_text(), re.MULTILINE)
    listed = {name: set(re.split(r"[, `]+", brought)) for name, brought in rows}
    assert set(listed) == {*EXTRAS, "all"}
    assert all(set(packages) <= listed[name] for name, packages in EXTRAS.items())


def test_the_lock_holds_allowed_versions_of_all_and_names_no_index():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line) for line in pins)
    versions = dict(line.split("==") for line in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (line for name in EXTRAS if name != "ray" for line in project["optional-dependencies"][name])
    for need in map(Requirement, [*project["dependencies"], *extras]):
        assert need.name == "ssl_lab" or need.specifier.contains(versions[canonical(need.name)]), need
