"""Features of a data set or of a user's samples, a row each in the order of the source, as a file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_lab.data.base import DataModule, has_split
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.files import write_atomically
from ssl_lab.limited import no_formula
from ssl_lab.methods.base import Method
from ssl_lab.predict.outputs import rows_beside
from ssl_lab.predict.tables import storable_cell

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features and the known facts of their samples.

    Attributes:
        columns: Columns of equal length N, such as ``path`` and ``class``.
        values: Features fp32 (N, D).
        places: Split and row within it of each sample of a data set; empty for a user's samples.
    """

    columns: Mapping[str, Sequence[Any]]
    values: NDArray[np.float32]
    places: Sequence[tuple[str, int]] = ()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.values)


@torch.no_grad()
def features_of_data(
    method: Method,
    datamodule: DataModule,
    device: torch.device,
    *,
    splits: Sequence[str] | None = None,
    advance: Callable[[int], None] = lambda number: None,
) -> Features:
    """Features of a data set: of some splits one after the other, or of all, put back into the order of their source.

    Args:
        method: The method, on the device.
        datamodule: The data.
        device: Where to compute.
        splits: Splits whose samples get the columns ``split`` and ``index``; None for all that there are, without these.
        advance: Called with the number of samples that were done.

    Raises:
        ValueError: If a feature is not finite, or a split is missing.
    """
    names = list(splits) if splits is not None else [split for split in SPLITS if has_split(datamodule, split)]
    found: list[torch.Tensor] = []
    labels: list[int] = []
    places: list[tuple[str, int]] = []
    keys: list[tuple[int, int, str]] = []
    sources: dict[str, int] = {}
    for split in names:
        of_split = []
        for batch in datamodule.eval_dataloader(split):
            features = method.features({name: column.to(device) for name, column in batch.items()}).float().cpu()
            of_split.append(features)
            labels += batch["label"].tolist() if "label" in batch else [-1] * len(features)
            advance(len(features))
        found += of_split
        check_finite(torch.cat(of_split), split, use="written")
        source, rows = datamodule.origin(split)
        number = sources.setdefault(source, len(sources))
        keys += [(number, int(row), source) for row in rows]
        places += [(split, row) for row in range(len(rows))]
    order = list(range(len(keys))) if splits is not None else sorted(range(len(keys)), key=lambda k: keys[k][:2])
    columns: dict[str, list[Any]] = {}
    if splits is not None:
        columns = {"split": [split for split, _ in places], "index": [row for _, row in places]}
    columns[datamodule.origin_column] = [datamodule.name_of(keys[k][2], keys[k][1]) for k in order]
    if datamodule.labelled:
        known = [labels[k] if labels[k] >= 0 else None for k in order]
        names_of = datamodule.spec.class_names
        columns["label"] = known
        if names_of:
            columns["class"] = [None if label is None else names_of[label] for label in known]
    values: NDArray[np.float32] = torch.cat(found).numpy()[order]
    return Features(columns=columns, values=values, places=[places[k] for k in order])


def num_samples(datamodule: DataModule, splits: Sequence[str] | None) -> int:
    """Samples of some splits, or of all that :func:`features_of_data` takes."""
    names = splits if splits is not None else [split for split in SPLITS if has_split(datamodule, split)]
    return sum(len(next(iter(datamodule.columns(split).values()))) for split in names)


def write_features(found: Features, out: Path) -> list[Path]:
    r"""Write a parquet, csv or npy file by the ending; beside npy, which holds the features alone, a csv of its rows.

    Bytes of file names that are not UTF-8 are written out, as in ``\xff``.

    Returns:
        The files.
    """
    columns = {name: [storable_cell(cell) for cell in column] for name, column in found.columns.items()}
    found = replace(found, columns=columns)
    if out.suffix == ".npy":
        beside = rows_beside(out)
        write_atomically(beside, partial(_write_rows, found, features=False), through_link=True)
        write_atomically(out, partial(_write_array, found), through_link=True)
        return [out, beside]
    write = _write_parquet if out.suffix == ".parquet" else partial(_write_rows, features=True)
    write_atomically(out, partial(write, found), through_link=True)
    return [out]


def _write_array(found: Features, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, found.values)


def _write_rows(found: Features, path: Path, *, features: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        values = found.values if features else found.values[:, :0]
        writer.writerow([*found.columns, *(f"features.{k}" for k in range(values.shape[1]))])
        columns = {
            **found.columns,
            **({"class": map(_no_formula, kinds)} if (kinds := found.columns.get("class")) else {}),
        }
        for row, vector in zip(zip(*columns.values(), strict=True), values.tolist(), strict=True):
            writer.writerow([*row, *vector])


def _no_formula(kind: str | None) -> str | None:
    return None if kind is None else no_formula(kind)


def _write_parquet(found: Features, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: pa.array(list(column)) for name, column in found.columns.items()}
    if "label" in columns:
        columns["label"] = pa.array(list(found.columns["label"]), pa.int64())
    flat = pa.array(found.values.ravel())
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, found.values.shape[1])
    pq.write_table(pa.table(columns), path)
