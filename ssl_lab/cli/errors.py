"""Turn errors into one message: cannot what, found what, do what; with the line of the user's file."""

from __future__ import annotations

import errno
import linecache
import re
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_lab.extras import EXTRAS, MissingPackageError

_PLUGINS = {"joblib": "hydra-joblib-launcher", "ray": "hydra-ray-launcher"}
"""Package that provides a launcher or sweeper that is not part of Hydra."""
_TRACE = "SSL_LAB_TRACEBACK=1 shows the whole trace."
_OURS = "This looks like a bug in ssl_lab. Please report it with the command and its trace, which SSL_LAB_TRACEBACK=1 shows."
_IN_TEXT = re.compile(
    r'File "([^"\n]+)", line (\d+), in (\S+)'
)  # of a trace that another process or the compiler quotes

_FRAMES = re.compile(r"^  File .*\n(?:    .*\n)*", re.MULTILINE)  # of a quoted trace; its message follows the last
_FAKE = re.compile(r"got (\w+)\((['\"])(.*)\2\)$", re.MULTILINE)  # how the compiler quotes what it met
_RESUMED = re.compile(r"^torch_dynamo_resume_in_(\w+)_at_\d+$")  # what the compiler calls the rest of a function


def explain(error: BaseException, *, command: str = "pretrain", overrides: Sequence[str] = ()) -> str:
    """The message of the error that a user can act on, without the layers that wrapped it.

    Args:
        error: What was raised.
        command: The command that raised it.
        overrides: Its arguments.
    """
    from hydra.errors import InstantiationException

    raised = error
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if known := _known(error, command, overrides):
        return known
    text = str(error).strip()
    kind = type(error)
    if place := _line_of_user(raised):
        return f"{_quoted(error, text)}\n{place}\n{_TRACE}"
    if isinstance(error, TypeError | AttributeError | ImportError) and (outdated := _outdated()):
        return f"{kind.__name__}: {text}\n{outdated}"
    module = _raised_in(error)
    if kind.__module__.startswith(("hydra", "omegaconf")):
        return _of_omegaconf(text)
    if kind.__module__.startswith("lightning") or isinstance(error, OSError | ImportError):
        return text or kind.__name__
    if isinstance(error, ValueError | RuntimeError):
        by_library = module and not module.startswith(("ssl_lab", "hydra"))
        return f"{text or kind.__name__}" + (f"\nRaised in {module}. {_TRACE}" if by_library else "")
    return f"{kind.__name__}: {text}\n{_OURS}"


def _quoted(error: BaseException, text: str) -> str:
    """Kind and message of an error; of one that a worker or the compiler wraps, those of the error inside."""
    if "Original Traceback" in text:
        return _FRAMES.split(text)[-1].strip()
    if type(error).__module__.startswith("torch._dynamo"):
        inside = _FAKE.search(text)
        cause = f"{inside[1]}: {inside[3]}" if inside else f"{type(error).__name__}: {text.splitlines()[0]}"
        return f"{cause} (found by the compiler; compile=false runs without it)"
    return f"{type(error).__name__}: {text}"


def _known(error: BaseException, command: str, overrides: Sequence[str]) -> str | None:
    """The message of an error whose cause and remedy are known."""
    from ssl_lab.cli.suggest import is_group, unknown_choice, unknown_reference, unknown_setting

    if missing_package := next((each for each in _chain(error) if isinstance(each, MissingPackageError)), None):
        return str(missing_package)
    if command == "pretrain" and isinstance(error, FileExistsError) and Path(str(error.filename)).is_file():
        return (
            f"Cannot make the folder {error.filename}: a file has that name. Move it away, or choose another run_dir=."
        )
    text = str(error).strip()
    if missing_module := re.search(r"Error loading '([\w.]+)':\s+ModuleNotFoundError\(\"No module named '(\w+)", text):
        path, module = missing_module.groups()
        own = f"Start the command in the folder that holds {module}.py, or install it."
        remedy = own if path.startswith(f"{module}.") else f"Install {module}."
        return f"Cannot import {path}: there is no module {module!r}. {remedy}"
    if misspelt := re.search(r"Could not override '([\w.@/]+)'", text):
        return unknown_setting(misspelt[1], command, overrides)
    if plugin := re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", text):
        use = f"use hydra/{plugin[1]}={plugin[2]}"
        if package := _PLUGINS.get(plugin[2]):
            return str(MissingPackageError(use, package))
        return f"Cannot {use}: it is not installed. Install the Hydra plugin that brings the {plugin[1]} {plugin[2]!r}."
    if "Unknown plugin class" in text and "ssl_lab_slurm" in text:
        return str(MissingPackageError("use hydra/launcher=slurm", "hydra-submitit-launcher"))
    if isinstance(error, AssertionError) and _raised_in(error).startswith("hydra."):
        return "Hydra cannot read a setting of the command line. Settings have the form key=value, see --cfg job."
    if type(error).__name__ == "OverrideParseException":
        return _unreadable(error.override)  # type: ignore[attr-defined]
    if "Config group override must be a string or a list" in text:
        if nameless := [one for one in overrides if one.startswith("=")]:
            return _unreadable(nameless[0])
        wrong = [one for one in overrides if is_group(one.partition("=")[0])] or list(overrides)
        return f"Cannot read {' or '.join(map(repr, wrong))}: a group takes the name of a choice. See ssl-lab list."
    if ambiguous := re.search("Ambiguous value for argument '(.*?)=(.*?)'\n1\\.", text, re.DOTALL):
        key, value = ambiguous.groups()
        listed = f" For one list, write {key}=[{value}]." * (not is_group(key))
        return f"{key}={value} gives several values to one run. For a run with each of them, add -m.{listed}"
    if gone := re.search(r"^Key '(\w+)' is not in struct", text):
        return f"The command needs {gone[1]!r}, which its arguments take out. Leave ~{gone[1]} out."
    if missing := re.search(r"Could not find '([\w/]+)/([^/']*)'", text):
        return unknown_choice(missing[1], missing[2])
    if reference := re.search(r"Interpolation key '([\w.]+)' not found\s+full_key: (\S+)", text):
        return unknown_reference(reference[1], reference[2], command, overrides)
    if type(error).__name__ == "MissingMandatoryValue":
        return f"{text.splitlines()[0]}. Give it on the command line as key=value."
    if re.search("Connection (closed|reset) by peer|remote process exited", text) and re.search(
        "gloo|nccl", text, re.I
    ):
        return "Another rank of this run has ended, and the remaining ranks cannot continue alone. Its own message says why."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = error.filename2 or error.filename or "a file"
        return f"Cannot write {what} ({error.strerror}). Make room there, or choose another place."
    if ended := re.search(r"DataLoader worker \(pid.*?\) (?:exited unexpectedly|is killed by signal: \w[\w ]*)", text):
        return (
            f"{ended[0]}. A worker that dies without a message has mostly run out of memory. Lower data.num_workers or "
            "data.batch_size."
        )
    if isinstance(error, MemoryError) or "not enough memory" in text:
        return f"The settings ask for more memory than there is ({text or 'MemoryError'}). Lower sizes and widths."
    return None


def _unreadable(override: str) -> str:
    """Suggest a remedy for an argument that Hydra's grammar cannot parse."""
    from hydra.core.override_parser.types import Quote, QuotedString

    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        return f"Cannot read the argument {override!r}. Settings have the form key=value, see --cfg job."
    quoted = shlex.quote(f"{key}={QuotedString(text=value, quote=Quote.single).with_quotes()}")
    return f"Cannot read the value of {override!r}. If it is text, quote it twice: {quoted}"


def _of_omegaconf(text: str) -> str:
    """The first line of a message, and the setting that the others name."""
    key = re.search(r"full_key: (\S+)", text)
    first = text.splitlines()[0] if text else ""
    if key is None or key[1] in first:
        return text if key is None else first
    return f"{key[1]}: {first}. Set {key[1]} to another value, see --cfg job."


def _outdated() -> str | None:
    """Packages below their required versions, with the remedy; None if there are none."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        needs = [Requirement(line) for line in requires("ssl_lab") or ()]
    except PackageNotFoundError:
        return None
    old = []
    for need in needs:
        if need.marker is not None and not any(need.marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue  # of what only developers need
        try:
            found = version(need.name)
        except PackageNotFoundError:
            continue  # nothing needs the package of an extra before it is used
        if not need.specifier.contains(found, prereleases=True):
            need.marker = None
            old.append((need, found))
    if not old:
        return None
    found_old = "; ".join(f"ssl_lab needs {need}, found {found}" for need, found in old)
    return f"{found_old}. Update: pip install {' '.join(shlex.quote(str(need)) for need, _ in old)}"


def _line_of_user(error: BaseException) -> str | None:
    """File, line and text of the deepest line of the user's own code that the error went through; None without."""
    found = None
    for each in _chain(error):
        for frame, number in traceback.walk_tb(each.__traceback__):
            if is_users_file(frame.f_code.co_filename):
                found = (frame.f_code.co_filename, number, frame.f_code.co_name)
        for path, line, name in _IN_TEXT.findall(str(each)):
            if is_users_file(path):
                found = (path, int(line), name)
        if isinstance(each, SyntaxError) and each.filename and is_users_file(each.filename):
            found = (each.filename, each.lineno or 1, "<module>")
        if found is not None:
            path, number, name = found
            name = _RESUMED.sub(r"\1", name)
            return f"  {path}, line {number}, in {name}\n    {linecache.getline(path, number).strip()}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the innermost first."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return reversed(chain)


def is_users_file(path: str) -> bool:
    """Return whether a source file is neither ours nor Python's nor of an installed package."""
    file = Path(path)
    if not file.is_file() or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    package = Path(__file__).resolve().parents[1]
    python = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    ours = (package, package.parent / "hydra_plugins", *python)
    return file.resolve() != Path(sys.argv[0]).resolve() and not any(
        file.resolve().is_relative_to(folder) for folder in ours
    )


def of_settings(error: BaseException) -> bool:
    """Return whether Hydra or OmegaConf raised the error, whose words :func:`explain` replaces."""
    libraries = ("hydra.", "omegaconf.", "antlr4.")
    return type(error).__module__.startswith(libraries) or _raised_in(error).startswith(libraries)


def _raised_in(error: BaseException) -> str:
    """The module in which it was raised."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""
