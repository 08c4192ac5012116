"""First steps of every command that builds live objects."""

from __future__ import annotations

import logging
import sys
from typing import Any

import lightning.fabric
import lightning.pytorch
import matplotlib
from rich.console import Console

from ssl_lab.engine.memory import keep_freed_memory
from ssl_lab.engine.settled import hide_settled_warnings
from ssl_lab.report.tables import results_table


def prepare_process() -> None:
    """Memory is kept, and what libraries say of what ssl_lab has settled is not shown."""
    keep_freed_memory()
    matplotlib.rcdefaults()  # a matplotlibrc in the working folder can start LaTeX
    for package in (lightning.pytorch, lightning.fabric):  # which set a level themselves when they are imported
        logging.getLogger(package.__name__).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # its retries; what fails in the end is an error of ours
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # what it logs, its errors say
    hide_settled_warnings()


def print_table(evaluation: dict[str, Any]) -> None:
    """Show an evaluation on the terminal."""
    Console(width=None if sys.stdout.isatty() else 120).print(results_table(evaluation))
