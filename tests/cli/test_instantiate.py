from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from ssl_lab.cli.build import OF_START
from ssl_lab.cli.instantiate import check_types, instantiate
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.cli.trust.targets import trusting


class Part:
    def __init__(self, *, width: int = 1) -> None:
        self.width = width


class Whole:
    def __init__(
        self,
        *,
        size: int | None = None,
        rate: float = 0.5,
        name: str = "x",
        packed: bool = False,
        kind: Literal["a", "b"] = "a",
        widths: Sequence[int] = (1,),
        betas: tuple[float, float] = (0.9, 0.99),
        options: Mapping[str, Any] | None = None,
        part: Part | None = None,
        parts: Sequence[Part] = (),
        make: Callable[[int], Part] | None = None,
        root: str | Path = ".",
        free=None,
    ) -> None:
        self.settings = {name: value for name, value in locals().items() if name != "self"}


@pytest.fixture(autouse=True)
def _trusted():
    with trusting(everything=True):
        yield


PART = {"_target_": f"{__name__}.Part"}


def whole(**settings):
    return instantiate(
        OmegaConf.create({"a": {"b": {"_target_": f"{__name__}.Whole", **settings}}}).a.b, _convert_="all"
    )


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[Whole.__module__])


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 3, "rate": 1, "name": "3", "packed": True, "kind": "b", "widths": [], "betas": [1, 0.5]},
        {"size": None, "options": {"x": [1]}, "part": PART, "parts": [PART], "make": {**PART, "_partial_": True}},
        {"root": "/x", "free": object, "part": None, "options": None},
        {"free": "anything"},
    ],
)
def test_settings_of_the_right_type(settings):
    if settings.get("free") is object:
        settings = {**settings, "free": [1, "a", {"b": None}]}
    found = whole(**settings).settings
    assert all(found[name] == value for name, value in settings.items() if not str(name).startswith(("part", "make")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "3"}, "a.b.size should be a whole number or null, found '3'. Set a.b.size to another value"),
        ({"size": 2.0}, "a.b.size should be a whole number or null, found 2.0"),
        ({"size": True}, "a.b.size should be a whole number"),
        ({"rate": "fast"}, "a.b.rate should be a number, found 'fast'"),
        ({"rate": None}, "a.b.rate should be a number, found None"),
        ({"name": 3}, "a.b.name should be text, found 3"),
        ({"packed": 1}, "a.b.packed should be true or false, found 1"),
        ({"kind": "c"}, "a.b.kind should be one of a, b, found 'c'"),
        ({"widths": 8}, "a.b.widths should be a list of which each is a whole number, found 8"),
        ({"widths": [8, "x"]}, "a.b.widths should be a list"),
        ({"betas": [0.9]}, r"a.b.betas should be a list of 2 \(a number, a number\), found \[0.9\]"),
        ({"widths": {"x": 1}}, "a.b.widths should be a list"),
        ({"options": [1]}, "a.b.options should be a mapping or null"),
        ({"part": "Part"}, "a.b.part should be a Part with _target_ or null, found 'Part'"),
        ({"part": {**PART, "width": "x"}}, "a.b.part.width should be a whole number, found 'x'"),
        ({"parts": [PART, {**PART, "width": "x"}]}, r"a.b.parts\[1\].width should be a whole number"),
        ({"root": 7}, "a.b.root should be text"),
    ],
)
def test_settings_of_the_wrong_type_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        whole(**settings)


@pytest.mark.parametrize(
    ("target", "setting", "value", "message"),
    [
        ("methods.barlow_twins.BarlowTwins", "projection_dim", 0, "width of a layer, at least 1, found 0"),
        ("methods.vae.VAE", "latent_dim", -1, "width of a layer, at least 1, found -1"),
        ("encoders.convnet.ConvNet", "widths", [8, 0], r"width of a layer, at least 1, found \[8, 0\]"),
        ("methods.simclr.SimCLR", "temperature", float("inf"), "should be finite, found inf"),
        ("methods.vicreg.VICReg", "variance_weight", float("nan"), "should be finite, found nan"),
        ("optim.AdamW", "betas", [0.9, float("nan")], r"should be finite, found \[0.9, nan\]"),
    ],
)
def test_empty_layers_and_numbers_that_are_not_finite_are_refused(target, setting, value, message):
    node = OmegaConf.create({"method": {"_target_": f"ssl_lab.{target}", "_partial_": True, setting: value}}).method
    with pytest.raises(ValueError, match=f"^method.{setting} .*{message}.* Set method.{setting} to"):
        instantiate(node)


@pytest.mark.parametrize("path", [3, ["a.csv"], {"train": 3}, {"train": ["a.csv", 3]}])
def test_a_path_is_text_or_a_mapping_from_splits(path):
    settings = {"_target_": "ssl_lab.data.text.hub_text.HubText", "_partial_": True, "path": path}
    with pytest.raises(ValueError, match="^data.path should be text or a mapping, found"):
        instantiate(OmegaConf.create({"data": settings}).data)


def test_a_missing_class_is_hydras_to_report():
    with pytest.raises(InstantiationException, match="nowhere"):
        instantiate(OmegaConf.create({"_target_": "nowhere.Nothing", "x": 1}))


PARTS = ("data", "encoder", "optim", "method", "trainer", "evaluation", "callbacks", "logger")


@pytest.mark.slow
def test_all_shipped_settings_are_of_the_right_type(tmp_path):
    sets = [[f"experiment={name}"] for name in choices("experiment")]
    # All choices of all groups, many at once. Some evaluations refer to the likelihood of the method.
    groups = [[f"{group}={name}" for name in choices(group)] for group in PARTS if group != "method"]
    sets += [["method=vae", *filter(None, chosen)] for chosen in zip_longest(*groups)]
    sets += [[f"method={name}"] for name in choices("method")]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for overrides in sets:
            cfg = compose("pretrain", [*overrides, f"run_dir={tmp_path}"])
            for missing in OmegaConf.missing_keys(cfg):
                OmegaConf.update(cfg, missing, "somewhere")
            for part in PARTS:
                node = cfg[part]
                if part == "encoder":
                    node = OmegaConf.masked_copy(node, [name for name in node if name not in OF_START])
                check_types(node)
