"""A run for use in Python."""

from __future__ import annotations

from pathlib import Path

from ssl_lab.cli.build import load_run
from ssl_lab.cli.data_of_run import data_for_run
from ssl_lab.cli.trust.targets import trusting
from ssl_lab.data.base import DataModule
from ssl_lab.methods.base import Method


def open_run(run_dir: Path | str, *, trust: bool = False) -> tuple[Method, DataModule]:
    """The trained method of a run, in eval mode, and the run's own data, for use in Python.

    Args:
        run_dir: The run directory.
        trust: Run classes that are not ssl_lab's own, which its ``config.yaml`` names; for runs of people you trust.

    Raises:
        FileNotFoundError: If the directory is no run or has no checkpoint.
        ValueError: If the configuration names what could run code, or the checkpoint is damaged or holds code.
    """
    with trusting(everything=trust):
        cfg, spec, method = load_run(Path(run_dir))
        return method, data_for_run(cfg, Path(run_dir), spec, None)
