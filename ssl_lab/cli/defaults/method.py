"""The method of a run that names data alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssl_lab.cli.paths import config_dir
from ssl_lab.limited import load_yaml

_METHODS = {"text": "mlm", "pair": "clip"}
"""By the package of :mod:`ssl_lab.data` whose data a run trains on; images take the default of ``conf/pretrain.yaml``."""
_CHOSEN_BY = ("method", "experiment", "data", "run")
_NAMES_IT = re.compile(r"ssl_lab\.data\.(\w+)\.")


def with_method(args: Sequence[str]) -> list[str]:
    """Arguments of a command with the method that suits the data they name, where they name none.

    Args:
        args: Arguments of one run or of a sweep; a sweep over data of several kinds keeps the default.
    """
    given = {key: value for key, _, value in (arg.partition("=") for arg in args) if key in _CHOSEN_BY}
    if given.keys() & {"method", "experiment", "run"} or "data" not in given:
        return list(args)
    methods = {_METHODS.get(modality_of(name.strip())) for name in given["data"].split(",")}
    method = methods.pop()
    return [*args] if methods or method is None else [f"method={method}", *args]


def modality_of(data: str) -> str:
    """The modality of a choice of ``data=``, as in ``image``; empty if it is not one of the package's."""
    path = config_dir() / "data" / f"{data}.yaml"
    found = _NAMES_IT.match(load_yaml(path).get("_target_", "")) if path.is_file() else None
    return found[1] if found else ""
