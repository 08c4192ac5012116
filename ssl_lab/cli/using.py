"""Runs in use on a user's own samples, for the commands and for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_lab.cli.build import load_run
from ssl_lab.cli.data_of_run import data_in_run
from ssl_lab.cli.process import find_device
from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.cli.trust.targets import trusting
from ssl_lab.data.base import DataModule
from ssl_lab.methods.base import Method
from ssl_lab.predict.inputs import Given, from_python
from ssl_lab.predict.running import Found, predicting, run_on, task_of
from ssl_lab.runs.directory import DATA_SPEC
from ssl_lab.types import Spec

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run as it was judged, to be used on samples of a user's.

    Attributes:
        run_dir: The run directory.
        method: The method, on the device, in eval mode.
        datamodule: Data like that of the run, whose own samples are not read.
        spec: Facts of the data that the encoder is used on.
        device: Where it computes.
    """

    run_dir: Path
    method: Method
    datamodule: DataModule
    spec: Spec
    device: torch.device

    def run(
        self,
        given: Sequence[Given],
        compute: Callable[[DataModule], Sequence[Any]],
        advance: Callable[[int], None] = lambda number: None,
    ) -> Found:
        """Compute something for all samples; see :func:`~ssl_lab.predict.running.run_on`.

        Raises:
            ValueError: If none of them can be read.
        """
        whole = Found(given=[], results=[], unreadable=[])
        for found in run_on(given, self.datamodule, self.spec, compute):
            whole.given.extend(found.given)
            whole.results.extend(found.results)
            whole.unreadable.extend(found.unreadable)
            advance(len(found.given) + len(found.unreadable))
        if not whole.given:
            raise ValueError(
                f"Cannot read any of the {len(given)} inputs ({named(whole.unreadable)}): {unread(self.datamodule)}. Check "
                "the files, and give others."
            )
        return whole


def open_to_use(run_dir: Path, *, batch_size: int | None = None) -> Opened:
    """The run with the weights and settings that it was judged by.

    Args:
        run_dir: The run directory.
        batch_size: Samples at a time; None for as many as in evaluation.

    Raises:
        FileNotFoundError: If the directory is no run or has no checkpoint.
        ValueError: If its files name what could run code, or are damaged.
    """
    cfg, spec, method = load_run(run_dir)
    if (run_dir / DATA_SPEC).is_file():
        spec = read_spec(run_dir, cfg, DATA_SPEC)
    datamodule = data_in_run(cfg, run_dir, spec, None)
    if batch_size is not None:
        datamodule.eval_batch_size = batch_size
    device = find_device()
    return Opened(run_dir=run_dir, method=method.to(device), datamodule=datamodule, spec=spec, device=device)


def named(given: Sequence[Given]) -> str:
    """The first of some samples, in words."""
    names = [each.name or f"text {each.shown}" for each in given[:_NAMED]]
    return ", ".join([*names, *(["..."] if len(given) > _NAMED else [])])


def unread(datamodule: DataModule) -> str:
    """Why samples of this data cannot be read."""
    return "they are blank" if "text" in datamodule.fields else "they are no pictures, or damaged"


def predicted_rows(found: Found) -> list[dict[str, Any]]:
    """Where each sample came from, its texts, and what is predicted for it."""
    return [
        {**given.origin, **{name: text for name, text in given.shown.items() if name not in row}, **row}
        for given, row in zip(found.given, found.results, strict=True)
    ]


def predict(
    run_dir: Path | str,
    inputs: Any,
    *,
    columns: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    trust: bool = False,
) -> list[dict[str, Any]]:
    """What the head of a fine-tuned run predicts for samples of yours, treated as the evaluation treats the data's.

    Args:
        run_dir: A run directory that ``ssl-lab finetune`` wrote.
        inputs: For images a path, pixels or a picture of Pillow, or several: a list, or an array (N, H, W, C) or
            (N, C, H, W). For texts a string or several. For samples of several parts dicts or tuples, such as
            ``{"question": ..., "text": ...}``. A ``pathlib.Path`` is a file or folder as ``input=`` of the command takes it.
        columns: The columns of tables that hold the parts of a sample, such as ``{"text": "message"}``.
        batch_size: Samples at a time; None for as many as in evaluation.
        trust: Run classes that are not ssl_lab's own, which the run names; for runs of people you trust.

    Returns:
        A dict for each input in their order: ``path`` or ``id``, and by the task ``prediction``, ``probability`` and
        ``probabilities`` by class; ``words`` and ``tags``; ``answer`` and ``score``; ``similarity``; ``translation``; or
        ``mask``, a :class:`~ssl_lab.types.ClassMap`, and ``shares`` by class.

    Raises:
        FileNotFoundError: If there is no such run or file.
        ValueError: If the run has no head, or an input cannot be read.
    """
    with trusting(everything=trust):
        run = open_to_use(Path(run_dir), batch_size=batch_size)
    task = task_of(run.method, str(run_dir))
    found = run.run(from_python(inputs, run.datamodule, columns), predicting(task, run.device))
    if found.unreadable:
        raise ValueError(
            f"Cannot read {len(found.unreadable)} of {len(found.given) + len(found.unreadable)} inputs "
            f"({named(found.unreadable)}): {unread(run.datamodule)}. Leave them out."
        )
    return predicted_rows(found)
