"""The ``ssl-lab`` command: dispatch, errors and completion. Imports nothing slow until a command needs it."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module

from ssl_lab.cli.commands import CHECKED, COMMANDS, SETTINGS
from ssl_lab.cli.torchmetrics_in_part import import_torchmetrics_in_part
from ssl_lab.cli.trust.own_code import forget_working_folder
from ssl_lab.engine.checkpoints.signals import (
    InterruptedRunError,
    is_first_rank,
    requeue,
    stop_listening,
    stop_on_signals,
)

HYDRA_FLAGS = (*("hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion", "info"),)
"""Flags of pretrain with two dashes; the commands with settings take ``--help`` alone.

Hydra's flags that read settings from elsewhere are missing: a saved one (``--experimental-rerun``) is a pickle."""

HYDRA_SHORT_FLAGS = ("-c", "-p", "-r", "-m", "-i", "-sc")

HELP = """ssl-lab: self-supervised pretraining, evaluation and reports

Examples:
  ssl-lab pretrain experiment=simclr_digits
  ssl-lab pretrain data=image_folder data.root=photos data.image_size=64
  ssl-lab finetune run=DIR data=fashion_mnist
  ssl-lab embed run=DIR out=features.parquet

Commands (ssl-lab COMMAND --help shows examples and settings):
{commands}

Settings are Hydra overrides: group=choice (method=vae) and key=value (optim.lr=1e-3).
Show a run's settings without starting it: ssl-lab pretrain experiment=NAME --cfg job
Complete commands by the tab key: eval "$(ssl-lab -sc install=bash)", the same with zsh;
  in fish: ssl-lab -sc install=fish | source
Allow classes of your own that a run or experiment names: trust=true, see docs/security.md
Show full error traces: SSL_LAB_TRACEBACK=1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors become one message and exit code 1."""
    forget_working_folder()
    import_torchmetrics_in_part()
    for stream in (sys.stdout, sys.stderr):  # a terminal of Windows may lack arrows, and a pipe has its old encoding
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="replace")
    try:
        with plain_warnings():
            code = _run(list(sys.argv[1:] if argv is None else argv))
        stop_listening(process_ends=argv is None)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, such as head, has closed it: there is no one to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())))
        return 0
    if args[0] == "--version":
        from ssl_lab import __version__

        print(__version__)
        return 0
    if args[0] in ("-sc", "--shell-completion"):
        from ssl_lab.cli.completion import complete

        return complete(args[1] if len(args) > 1 else "")
    if args[0] not in COMMANDS:
        close = get_close_matches(args[0], COMMANDS, n=1)
        advice = f"Did you mean {close[0]}?" if close else f"Choose from: {', '.join(COMMANDS)}."
        print(f"ssl-lab: there is no command {args[0]!r}. {advice}", file=sys.stderr)
        return 1
    if (args[0] == "pretrain" or args[0] in SETTINGS) and {"-h", "--help"} & set(args[1:]):
        from ssl_lab.cli.help import help_text

        print(help_text(args[0]))
        return 0
    if args[0] == "pretrain" or args[0] in SETTINGS:
        known = HYDRA_FLAGS if args[0] == "pretrain" else ()
        names = [arg[2:].partition("=")[0] for arg in args if arg.startswith("--")]
        if unknown := [name for name in names if name not in known]:
            where = f"ssl-lab {args[0]} {'--cfg job' if args[0] == 'pretrain' else '--help'}"
            print(
                f"ssl-lab: --{unknown[0]} is not an option. Settings are given as key=value, without dashes; "
                f"see all: {where}.",
                file=sys.stderr,
            )
            return 1
        short = [arg for arg in args[1:] if arg[:1] == "-" != arg[1:2]]
        if unknown := [arg for arg in short if args[0] != "pretrain" or arg not in HYDRA_SHORT_FLAGS]:
            print(f"ssl-lab: {unknown[0]} is not an option. Settings are given as key=value.", file=sys.stderr)
            return 1
    if args[0] in ("pretrain", "finetune"):
        stop_on_signals()  # before the seconds that imports take
    try:
        if args[0] == "pretrain" or args[0] in SETTINGS:
            return _with_trust(args[0], args[1:])
        return _command(args[0])(args[1:])
    except KeyboardInterrupt:
        print(
            "ssl-lab: stopped at once by Ctrl-C; the last checkpoint, if there is one, is as it was.", file=sys.stderr
        )
        return 130
    except BrokenPipeError:
        raise
    except InterruptedRunError as error:
        requeue(error)
        print(f"ssl-lab: {error}", file=sys.stderr)
        return int(is_first_rank())  # the first rank that fails ends all, and rank 0 may still be writing
    except BaseException as error:
        # The Rust code of tokenizers and safetensors panics with what is no Exception.
        if os.environ.get("SSL_LAB_TRACEBACK") or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        from ssl_lab.cli.errors import explain
        from ssl_lab.limited import printable

        message = explain(error, command=args[0], overrides=args[1:])
        print(printable(f"ssl-lab: {message}"), file=sys.stderr)  # it may quote someone else's file
        return 1


def _with_trust(name: str, args: list[str]) -> int:
    """Run a command whose settings may name only the classes that its arguments allow."""
    from ssl_lab.cli.trust.targets import check_choices, split_off_trust, trusting

    args, everything = split_off_trust(args)
    check_choices(args)
    with trusting(args, everything=everything):
        if name not in SETTINGS:
            return _command(name)(args)
        from ssl_lab.cli.settings import compose_settings

        cfg = compose_settings(name, args)
        if name in CHECKED:
            import_module(f"ssl_lab.cli.commands.{name}").check(cfg)
        from ssl_lab.cli.process import prepare_process

        prepare_process()
        return _command(name)(cfg, args)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Each warning as one line, once: ours as they are, others with the package or the line of the user's that they name."""
    usual = warnings.formatwarning
    shown: set[str] = set()

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        from ssl_lab.cli.errors import is_users_file

        text = " ".join(str(message).split())
        if text in shown or not is_first_rank():  # what one rank warns of, all do
            return ""
        shown.add(text)
        _, _, installed = filename.rpartition(f"-packages{os.sep}")
        if installed and installed != filename:
            text += f" ({installed.split(os.sep)[0].removesuffix('.py')})"
        elif is_users_file(filename):
            text += f" ({filename}, line {lineno})"
        return f"ssl-lab: Warning: {text}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _command(name: str) -> Callable[..., int]:
    return import_module(f"ssl_lab.cli.commands.{name}").run  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
