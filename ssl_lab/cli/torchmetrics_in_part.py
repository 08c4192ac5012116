"""torchmetrics without what Lightning does not use of it.

Lightning takes two classes of torchmetrics, whose package then imports transformers, torchvision and scipy for metrics that
ssl_lab never computes: a quarter of the processor time of a run's start. Here both classes come without the rest, which is
imported as soon as anything asks for it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from logging import getLogger
from types import ModuleType
from typing import Any

_NAME = "torchmetrics"
_PARTS = {
    "Metric": f"{_NAME}.metric",
    "MetricCollection": f"{_NAME}.collections",
    "__version__": f"{_NAME}.__about__",
}


class _Part(ModuleType):
    """The package before its ``__init__`` has run."""

    def __getattr__(self, name: str) -> Any:
        if name in _PARTS:
            import_module(f"{_NAME}.utilities")  # imports the module of Metric, which cannot be imported first
            return getattr(import_module(_PARTS[name]), name)
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def import_torchmetrics_in_part() -> None:
    """Put a part of torchmetrics in its place, where it is installed and not imported yet."""
    spec = None if _NAME in sys.modules else find_spec(_NAME)
    if spec is None:
        return
    part = _Part(_NAME)
    part.__spec__, part.__file__ = spec, spec.origin
    part.__path__ = list(spec.submodule_search_locations or ())
    part._logger = getLogger(_NAME)  # type: ignore[attr-defined]  # its own modules take it
    sys.modules[_NAME] = part
