"""Packages that only some uses need: the extras of pyproject.toml, and the one message if a package is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS = {
    "vision": ("timm",),
    "data": ("datasets", "pyarrow"),
    "text": ("sacrebleu",),
    "tensorboard": ("tensorboard",),
    "lora": ("peft",),
    "fid": ("torch-fidelity",),
    "mlflow": ("mlflow-skinny", "sqlalchemy", "alembic"),
    "sweep": ("optuna", "hydra-joblib-launcher"),
    "ray": ("hydra-ray-launcher",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "dashboard": ("plotly",),
    "slurm": ("hydra-submitit-launcher", "submitit"),
}
"""Packages of each extra, as pyproject.toml lists them; ``text`` includes ``data`` there, and ``all`` all but ``ray``."""

ALONE = ("trackio", "comet-ml", "aim")
"""Packages that no extra brings."""
_MODULES = {"mlflow-skinny": "mlflow"}


class MissingPackageError(ImportError):
    """A package that only some uses need is not installed.

    Args:
        use: What needs the package, such as ``use encoder=timm``.
        packages: The packages that are missing, all of one extra.
    """

    def __init__(self, use: str, *packages: str) -> None:
        extra = next((name for name, listed in EXTRAS.items() if packages[0] in listed), None)
        brings = packages[0] if extra is None else f'"ssl_lab[{extra}]"'
        *others, last = packages
        found = f"packages {', '.join(others)} and {last} are" if others else f"package {last} is"
        it = "them" if others else "it"
        super().__init__(f"Cannot {use}: the {found} not installed. Install {it} by: pip install {brings}.")


def require(use: str, *packages: str) -> None:
    """Refuse early, before any work, what needs packages that are not installed; imports none of them.

    Raises:
        MissingPackageError: Naming those that are missing.
    """
    if missing := [package for package in packages if find_spec(module_of(package)) is None]:
        raise MissingPackageError(use, *missing)


@contextmanager
def needed_to(use: str) -> Iterator[None]:
    """Within it, packages are imported that only some uses need.

    Example:
        >>> with needed_to("use encoder=timm"):
        ...     import timm

    Raises:
        MissingPackageError: If one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        for package in (*ALONE, *(package for listed in EXTRAS.values() for package in listed)):
            if error.name is not None and f"{error.name}.".startswith(f"{module_of(package)}."):
                raise MissingPackageError(use, package) from error
        raise


def module_of(package: str) -> str:
    """Name by which a package is imported."""
    name = _MODULES.get(package, package.replace("-", "_"))
    return f"hydra_plugins.{name}" if name.startswith("hydra_") else name
