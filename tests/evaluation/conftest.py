import functools
import importlib

import pytest
import yaml

from ssl_lab.cli.paths import config_dir
from ssl_lab.metrics import declared


@pytest.fixture(autouse=True, scope="session")
def every_metric_is_described():
    """Whatever a protocol of conf/evaluation returns in these tests, it has declared how that is shown."""
    patch = pytest.MonkeyPatch()
    nodes = [node for path in (config_dir() / "evaluation").glob("*.yaml") for node in _protocols(path)]
    for target in {node["_target_"] for node in nodes}:
        module, name = target.rsplit(".", 1)
        protocol = getattr(importlib.import_module(module), name)
        for method in {"run", "score"} & vars(protocol).keys():
            patch.setattr(protocol, method, _checked(getattr(protocol, method)))
    yield
    patch.undo()


def _protocols(path):
    return [node for name, node in yaml.safe_load(path.read_text()).items() if name != "defaults"]


def _checked(method):
    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        metrics = method(self, *args, **kwargs)
        plain = [name for name in metrics if name.removesuffix("_std") not in metrics or not name.endswith("_std")]
        missing = [name for name in plain if declared(self.metrics, name) is None]
        assert not missing, f"{type(self).__name__}.metrics does not describe {missing}"
        return metrics

    return checked
