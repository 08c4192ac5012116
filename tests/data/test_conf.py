import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class

NAMED = {"camvid", "sts_b"}  # data sets whose files say how they are read
CONF = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("file", CONF, ids=lambda file: file.stem)
def test_files_repeat_the_signature(file):
    text = file.read_text()
    settings = yaml.safe_load(text)
    parameters = inspect.signature(get_class(settings.pop("_target_"))).parameters
    assert text.startswith("# ") and set(settings) == set(parameters)
    for name, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty and file.stem not in NAMED:
            assert settings[name] == parameter.default, name
