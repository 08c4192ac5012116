"""Runs in use on a user's own samples, for the commands and for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ssl_lab.cli.build import load_run
from ssl_lab.cli.data_of_run import data_in_run
from ssl_lab.cli.inputs import given_to
from ssl_lab.cli.paths import tuned_run
from ssl_lab.cli.progress import counting
from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.cli.trust.targets import trusting
from ssl_lab.data.base import DataModule
from ssl_lab.devices import find_device
from ssl_lab.methods.base import Method
from ssl_lab.predict.inputs import Given, fields_of_features, from_python, named, unread
from ssl_lab.predict.neighbours import Shown, nearest, neighbour_rows, shown_inputs
from ssl_lab.predict.running import Found, embedding, predicting, run_on, task_of
from ssl_lab.runs.directory import DATA_SPEC
from ssl_lab.types import Spec


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


def features_of_inputs(cfg: DictConfig, opened: Opened, *, setting: str = "input") -> tuple[Found, NDArray[np.float32]]:
    """The samples that settings of a command name, and their features (N, D); ``setting`` is what it calls ``input``."""
    given = given_to(cfg, opened.datamodule, fields=fields_of_features(opened.datamodule), setting=setting)
    with counting(len(given), "samples") as advance:
        found = opened.run(given, embedding(opened.method, opened.device), advance)
    return found, np.stack(found.results)


def places_of(queries: Sequence[Shown], among: Sequence[Shown]) -> list[int | None]:
    """The place of each query among samples that are files; None if it is none of them."""
    places = {Path(sample.file).resolve(): k for k, sample in enumerate(among) if sample.file is not None}
    return [None if query.file is None else places.get(Path(query.file).resolve()) for query in queries]


def predicted_rows(found: Found) -> list[dict[str, Any]]:
    """One row for each sample: its origin, its texts and its prediction."""
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
    """Predict your samples with the head of a fine-tuned run, treated as the evaluation treats the run's data.

    Args:
        run_dir: A run directory that ``ssl-lab finetune`` wrote, or the directory around one.
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
        run = open_to_use(tuned_run(Path(run_dir)), batch_size=batch_size)
    task = task_of(run.method, str(run_dir))
    return predicted_rows(_all_read(run, from_python(inputs, run.datamodule, columns), predicting(task, run.device)))


def embed(
    run_dir: Path | str,
    inputs: Any,
    *,
    columns: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    trust: bool = False,
) -> NDArray[np.float32]:
    """Features of your samples, fp32 (N, D), one row for each in their order, as protocols judge them.

    Args:
        run_dir: A run directory.
        inputs: As of :func:`predict`; of samples with several texts the first text alone.
        columns: As of :func:`predict`.
        batch_size: As of :func:`predict`.
        trust: As of :func:`predict`.

    Raises:
        FileNotFoundError: If there is no such run or file.
        ValueError: If an input cannot be read, or a feature is not finite.
    """
    with trusting(everything=trust):
        run = open_to_use(Path(run_dir), batch_size=batch_size)
    return np.stack(_embedded(run, inputs, columns).results)


def neighbours(
    run_dir: Path | str,
    query: Any,
    among: Any,
    *,
    k: int = 10,
    columns: Mapping[str, str] | None = None,
    trust: bool = False,
) -> list[dict[str, Any]]:
    """The samples that are most similar to each query, by cosine similarity of a run's features.

    Args:
        run_dir: A run directory.
        query: One input or several, as of :func:`predict`.
        among: The inputs among which neighbours are found.
        k: How many for each query.
        columns: As of :func:`predict`.
        trust: As of :func:`predict`.

    Returns:
        Rows with ``query``, ``rank`` from 1, ``similarity``, ``name`` (path or number of the input) and for texts ``text``. A
        file is not its own neighbour.

    Raises:
        FileNotFoundError: If there is no such run or file.
        ValueError: If an input cannot be read, or ``k`` is not positive.
    """
    if k < 1:
        raise ValueError(f"Cannot find {k} neighbours. Set k to 1 or more.")
    with trusting(everything=trust):
        run = open_to_use(Path(run_dir))
    asked, found = (_embedded(run, inputs, columns) for inputs in (query, among))
    questions, shown = shown_inputs(asked.given), shown_inputs(found.given)
    best = nearest(np.stack(asked.results), np.stack(found.results), k, same=places_of(questions, shown))
    return neighbour_rows(questions, shown, best)


def _embedded(run: Opened, inputs: Any, columns: Mapping[str, str] | None) -> Found:
    fields = fields_of_features(run.datamodule)
    given = from_python(inputs, run.datamodule, columns, fields=fields)
    return _all_read(run, given, embedding(run.method, run.device))


def _all_read(run: Opened, given: Sequence[Given], compute: Callable[[DataModule], Sequence[Any]]) -> Found:
    """Compute results for samples, and refuse the call if one cannot be read.

    Raises:
        ValueError: If one cannot.
    """
    found = run.run(given, compute)
    if found.unreadable:
        raise ValueError(
            f"Cannot read {len(found.unreadable)} of {len(given)} inputs ({named(found.unreadable)}): "
            f"{unread(run.datamodule)}. Leave them out."
        )
    return found
