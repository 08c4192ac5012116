"""Errors as one message."""

from __future__ import annotations

import difflib
import re
import traceback

_PLUGINS = {
    "joblib": "hydra-joblib-launcher: pip install 'ssl_lab[sweep]'",
    "ray": "hydra-ray-launcher: pip install 'ssl_lab[ray]'",
}
"""What brings a launcher or sweeper that is not part of Hydra."""


def explain(error: BaseException) -> str:
    """The message of the error that a user can act on, without the layers that wrapped it."""
    from hydra.errors import InstantiationException

    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    if isinstance(error, TypeError) and "unexpected keyword argument" in text:
        name = text.split("'")[-2]
        return f"{text!s}. Remove +...{name}= from the command, or see the accepted keys with --cfg job."
    if missing_module := re.search(r"Error loading '([\w.]+)':\s+ModuleNotFoundError\(\"No module named '(\w+)", text):
        path, module = missing_module.groups()
        own = f"Start the command in the folder that holds {module}.py, or install it."
        remedy = own if path.startswith(f"{module}.") else f"Install {module}."
        return f"{path} was asked for, but there is no module {module!r}. {remedy}"
    if misspelt := re.search(r"Could not override '([\w.@/]+)'", text):
        return f"There is no setting {misspelt[1]!r}.{_suggest(misspelt[1])} See all settings with --cfg job."
    if plugin := re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", text):
        package = _PLUGINS.get(plugin[2], f"the Hydra plugin that brings the {plugin[1]} {plugin[2]!r}")
        return f"hydra/{plugin[1]}={plugin[2]} was asked for, but is not installed. Install {package}."
    if "Unknown plugin class" in text and "ssl_lab_slurm" in text:
        return (
            "hydra/launcher=slurm needs hydra-submitit-launcher, which is not installed: pip install 'ssl_lab[slurm]'."
        )
    if isinstance(error, AssertionError) and _raised_in(error).startswith("hydra."):
        return "Hydra cannot read a setting of the command line. Settings have the form key=value, see --cfg job."
    if missing := re.search(r"Could not find '(\w+)/([\w/]+)'", text):
        return _unknown_choice(missing[1], missing[2])
    if type(error).__name__ == "MissingMandatoryValue":
        return f"{text.splitlines()[0]}. Give it on the command line as key=value."
    if isinstance(error, MemoryError) or "not enough memory" in text:
        return f"The settings ask for more memory than there is ({text or 'MemoryError'}). Lower sizes and widths."
    kind = type(error)
    meant_for_users = isinstance(
        error, ValueError | OSError | RuntimeError | ImportError
    ) or kind.__module__.startswith(("hydra", "omegaconf", "lightning"))
    hint = "" if meant_for_users else "\nThis looks like a fault of ours. SSL_LAB_TRACEBACK=1 shows where it happened."
    return (text if meant_for_users else f"{kind.__name__}: {text}") + hint


def _raised_in(error: BaseException) -> str:
    """The module in which it was raised."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""


def _suggest(key: str) -> str:
    from omegaconf import OmegaConf

    from ssl_lab.cli.paths import config_dir

    known: set[str] = set()
    for path in config_dir().rglob("*.yaml"):
        group = ".".join(path.parent.relative_to(config_dir()).parts)
        prefix = "" if group in ("", "experiment", "sweep") else f"{group}."
        node = OmegaConf.load(path)
        known |= {f"{prefix}{name!s}" for name in node if name not in ("defaults", "_target_", "hydra")}
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.7)
    return f" Did you mean {close[0]}?" if close else ""


def _unknown_choice(group: str, name: str) -> str:
    from ssl_lab.cli.paths import choices

    known = choices(group)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {group}={close[0]}?" if close else ""
    return f"There is no {group} {name!r}.{hint} Choose from: {', '.join(known)}."
