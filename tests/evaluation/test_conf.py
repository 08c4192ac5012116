"""The files of conf/evaluation: keys are arguments, values are their defaults."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from ssl_lab.cli.paths import config_dir
from ssl_lab.evaluation.protocol import Protocol

FILES = sorted((config_dir() / "evaluation").glob("*.yaml"))


def protocols(path):
    return [node for name, node in yaml.safe_load(path.read_text()).items() if name != "defaults"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_settings_are_the_defaults_of_the_signature(path):
    assert path.read_text().startswith("# ")
    for node in protocols(path):
        module, name = node.pop("_target_").rsplit(".", 1)
        protocol = getattr(importlib.import_module(module), name)
        assert issubclass(protocol, Protocol)
        parameters = inspect.signature(protocol).parameters
        assert list(node) == list(parameters)
        for key, value in node.items():
            default = parameters[key].default
            if isinstance(value, str) and value.startswith("${"):
                continue  # taken from another group
            assert value == (list(default) if isinstance(default, tuple) else default), key


def test_every_protocol_of_the_evaluation_is_in_some_file():
    used = {node["_target_"] for path in FILES for node in protocols(path)}
    names = {target.rsplit(".", 1)[1] for target in used}
    labelled = {"KNN", "LinearProbe", "FewLabelProbe"}
    label_free = {"RankMe", "Uniformity", "FeatureStd", "Alignment", "LiDAR"}
    text = {"MaskedPrediction", "PseudoPerplexity", "LanguageModelling", "Denoising"}
    other = {"LikelihoodBound", "ImportanceNLL", "LatentUse", "CodePrediction", "SampleQuality", "FID", "MIG", "DCI"}
    other |= {"STS", "Retrieval", "ZeroShot"}
    assert names == labelled | label_free | text | other


def test_every_protocol_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/reference/protocols.md").read_text()
    targets = {node["_target_"] for path in FILES for node in protocols(path)}
    assert not [target for target in targets if f"`{target.rsplit('.', 1)[1]}`" not in page]


def test_every_protocol_says_its_settings(monkeypatch, tmp_path):
    monkeypatch.setattr("ssl_lab.evaluation.samples.fid._find_weights", lambda given: tmp_path / "weights")
    targets = {node["_target_"] for path in FILES for node in protocols(path)}
    for module, name in (target.rsplit(".", 1) for target in targets):
        kind = getattr(importlib.import_module(module), name)
        told = {**kind().settings, **dict.fromkeys(kind.told_by_names)}
        assert set(told) == set(inspect.signature(kind).parameters), name
