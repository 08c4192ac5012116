"""The commands as functions of Python: settings as keyword arguments, errors as exceptions with the command's message."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ssl_lab.cli.arguments import quote
from ssl_lab.cli.errors import explain, of_settings
from ssl_lab.cli.main import plain_warnings
from ssl_lab.cli.settings import compose_settings
from ssl_lab.cli.trust.targets import check_choices, trusting
from ssl_lab.engine.checkpoints.signals import STOP_SIGNALS, InterruptedRunError, requeue, stop_listening

_AS_WRITTEN = ("text", "prompt")
"""Settings whose value the command line takes as it is."""
_SAID = (ValueError, FileNotFoundError, FileExistsError)
"""Errors whose message says all."""
_WHOLE = ("path", "root", "options")
"""Last words of settings that hold a mapping, rather than settings of their own."""


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as arguments of the command line.

    ``optim={"lr": 1e-3}``, ``optim__lr=1e-3`` and ``**{"optim.lr": 1e-3}`` are ``optim.lr=0.001``.

    Raises:
        ValueError: If a value is an object, which no file of settings can name.
    """
    return [one for key, value in settings.items() for one in _overrides(key.replace("__", "."), value)]


def _overrides(key: str, value: Any) -> Iterator[str]:
    name = key.rpartition(".")[2]
    if key.startswith("-") or not key or "=" in key:
        raise ValueError(
            f"Cannot set {key!r}: it is not the name of a setting. See ssl-lab pretrain --cfg job for all of them."
        )
    if isinstance(value, Mapping) and not key.startswith("+") and name not in _WHOLE and "_target_" not in value:
        for below, each in value.items():
            yield from _overrides(f"{key}.{below}", each)
    elif key.startswith("~"):
        yield key if value is None else f"{key}={_written(key, value)}"
    elif isinstance(value, str) and (name in _AS_WRITTEN or value.startswith("run:")):
        yield f"{key}={value}"
    else:
        yield f"{key}={_written(key, value)}"


def _written(key: str, value: Any) -> str:
    """Write a Python value in Hydra's grammar, which reads it back as the same value.

    Raises:
        ValueError: If it is no plain value.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | os.PathLike):
        return quote(os.fspath(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_written(f'{key}.{name}', each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_written(key, each) for each in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        return _written(key, value.item())
    raise ValueError(_is_object(key, value))


def _is_object(key: str, value: Any) -> str:
    name = getattr(value, "__name__", None) if isinstance(value, type) else type(value).__name__
    what = f"the class {name}" if isinstance(value, type) else f"an object of {name}"
    names = {"optim": "optimizers", "method": "methods", "encoder": "encoders", "evaluation": "evaluations"}
    listed = names.get(key)
    say = f"Give a name of ssl_lab.list()[{listed!r}]" if listed else "Give a number, text, list or dict"
    own = {
        "optim": ", such as optim='adamw', optim__lr=1e-3",
        "encoder": ", or train your own network by SimCLR(network, AdamW(), TwoViews(View())).fit(images)",
        "method": ", such as method='simclr', or train your own object by method.fit(data)",
    }.get(key, "")
    return f"Cannot set {key} to {what}: a run keeps its settings as text, to be built again from them. {say}{own}."


@contextmanager
def as_command(name: str, args: Sequence[str], *, trust: bool = False) -> Iterator[None]:
    """Give errors the command's one message, and restore the process afterwards.

    It restores environment variables, Hydra's state, warnings and their form, levels of loggers, matplotlib's settings,
    handlers of signals, random streams, and torch's number of threads and precision of products.

    Args:
        name: The command.
        args: Its arguments, whose names of classes are allowed.
        trust: Allow any class.

    Raises:
        ValueError: With the command's message, where Hydra or OmegaConf raised an error of their own. ``SSL_LAB_TRACEBACK=1``
            shows where an error was raised.
        KeyboardInterrupt: If Ctrl-C stopped a run, whose state is saved.
    """
    with ExitStack() as stack:
        stack.enter_context(_state_kept())
        stack.enter_context(plain_warnings())
        stack.enter_context(trusting(args, everything=trust))
        try:
            check_choices(args)
            yield
        except InterruptedRunError as stopped:
            requeue(stopped)
            if stopped.status == "interrupted":
                raise KeyboardInterrupt(str(stopped)) from None
            raise
        except Exception as error:
            message = explain(error, command=name, overrides=args)
            if os.environ.get("SSL_LAB_TRACEBACK"):
                raise
            if type(error) in _SAID and error.args == (message,):
                raise type(error)(message) from None  # without the calls in between, which say nothing to a user
            if message == str(error).strip() or not of_settings(error):
                raise
            raise ValueError(message) from None


def run_command(name: str, args: Sequence[str], run: Callable[[DictConfig], Any], *, trust: bool = False) -> Any:
    """Run a command that composes its settings by itself on arguments."""
    with as_command(name, args, trust=trust):
        cfg = compose_settings(name, list(args))
        from ssl_lab.cli.process import prepare_process

        prepare_process()
        return run(cfg)


def pretrain_by_command(args: Sequence[str], *, trust: bool = False) -> Path:
    """``ssl-lab pretrain`` with these arguments; the run directory."""
    with as_command("pretrain", args, trust=trust):
        from ssl_lab.cli.commands.pretrain import pretrained

        run_dirs = pretrained(list(args))
        if not run_dirs:
            raise ValueError(
                f"Cannot read the settings {' '.join(args)}. See ssl-lab pretrain --cfg job for all of them."
            )
        return run_dirs[0]


def import_bars() -> None:
    """Import what draws bars for many libraries; without the widgets of notebooks these are plain, which need not be said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # type: ignore[import-untyped]  # noqa: F401


@contextmanager
def _state_kept() -> Iterator[None]:
    environment = dict(os.environ)  # before Lightning writes seeds and hydra.main its own into it
    import_bars()
    import matplotlib
    import torch
    from lightning.pytorch.utilities.seed import isolate_rng

    loggers = [logging.getLogger(), *filter(_is_logger, logging.root.manager.loggerDict.values())]
    levels = {logger: logger.level for logger in loggers}
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS} if in_main_thread else {}
    outer, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg  # of a caller who uses Hydra too
    with warnings.catch_warnings(), matplotlib.rc_context(), isolate_rng():
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra, HydraConfig.instance().cfg = outer, config
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
            for logger, level in levels.items():
                logger.setLevel(level)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            stop_listening(process_ends=False)
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


def _is_logger(value: Any) -> TypeGuard[logging.Logger]:
    return isinstance(value, logging.Logger)  # the others are gaps in the tree of their names
