"""Hugging Face data sets, from the hub or from local files, by split."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from huggingface_hub.errors import HfHubHTTPError

from ssl_lab.data.splits import split_named
from ssl_lab.data.tables import check_csv, csv_options

_FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".txt": "text",
}

# What the library and its readers raise on damaged files.
_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, pa.ArrowException,
    datasets.exceptions.DatasetGenerationError,
)  # fmt: skip


def title_of(path: str | Mapping[str, str]) -> str:
    """The last part of a path; for a file for each split, the folder of the first."""
    return Path(path).name if isinstance(path, str) else Path(next(iter(path.values()))).absolute().parent.name


def load_splits(
    path: str | Mapping[str, str],
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    sample_by: str | None = None,
) -> dict[str, datasets.Dataset]:
    """Data by split, memory-mapped: ``train``, and where they exist ``val``, ``test`` and ``pretrain``.

    Args:
        path: Identifier on the hub; or a local parquet, csv, tsv, json, jsonl or txt file, gzipped or not; or a folder
            of such files whose names say their split; or a file for each split.
        name: Configuration of a data set with several.
        options: Further arguments of ``datasets.load_dataset``, such as ``sep`` for csv.
        sample_by: What is one sample of plain text: ``line``, ``paragraph`` or ``document``.

    Raises:
        FileNotFoundError: If the path does not exist or the hub cannot be reached.
        ValueError: If the files are of no known kind, or the data cannot be read.
    """
    given, options = options, dict(options or {})
    if isinstance(path, str) and not _is_local(path):
        return _by_split(_load_from_hub(path, {"name": name, **options}), path)
    files = files_by_split(path)
    kinds = {suffix(file) for split_files in files.values() for file in split_files}
    formats = {_FORMATS[kind] for kind in kinds}
    if len(formats) > 1:
        raise ValueError(
            f"The files of a data set must be of one kind, found {sorted(kinds)} in {path}. "
            "Give one file for each split: data.path={train: ..., test: ...}."
        )
    if formats == {"csv"}:
        options = csv_options(kinds, [file for split_files in files.values() for file in split_files]) | options
    if formats == {"text"}:
        options = {"sample_by": sample_by or "line", "encoding": "utf-8-sig"} | options
    kind = formats.pop()
    loaded = datasets.DatasetDict()
    for (
        split,
        split_files,
    ) in files.items():  # each by itself: whole numbers in one and others in the next are both right
        data_files = {split: [glob.escape(str(file)) for file in split_files]}
        loaded |= _load_files(kind, {"data_files": data_files, **options})
    splits = _by_split(loaded, path)
    if kind == "csv" and "sep" not in (given or {}) and "names" not in (given or {}):
        check_csv(splits, path)
    return splits


def identity(splits: Mapping[str, datasets.Dataset]) -> list[tuple[str, str]]:
    """Plain data that change with the content of the splits."""
    return [(split, rows._fingerprint) for split, rows in sorted(splits.items())]


def _is_local(path: str) -> bool:
    looks_local = path.startswith((".", "~", os.sep)) or suffix(Path(path)) in _FORMATS
    return looks_local or Path(path).exists()


def suffix(file: Path) -> str:
    """The ending of a file's name in lower case, a .gz after it aside."""
    return Path(file.stem if file.suffix == ".gz" else file.name).suffix.lower()


def files_by_split(path: str | Mapping[str, str], kinds: Collection[str] = tuple(_FORMATS)) -> dict[str, list[Path]]:
    """Data files by split, from a file, a folder of files named by split, or a file for each split.

    Args:
        path: Where they are.
        kinds: Endings of the files, a .gz after them aside.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If no file, or not only files of these kinds are there.
    """
    if isinstance(path, Mapping):
        files = {split_named(split) or split: [_existing(file)] for split, file in path.items()}
    else:
        root = _existing(path)
        if root.is_file():
            files = {"train": [root]}
        else:
            known = sorted(file for file in root.iterdir() if file.is_file() and suffix(file) in kinds)
            known = known or sorted(file for file in root.rglob("*") if file.is_file() and suffix(file) in kinds)
            files = {}
            for file in known:
                split = split_named(file.name)
                if split is not None:
                    files.setdefault(split, []).append(file)
            if not files and known:
                files = {"train": known}
    unreadable = [str(file) for split_files in files.values() for file in split_files if suffix(file) not in kinds]
    if unreadable or not files:
        raise ValueError(
            f"A data set is made of {', '.join(kinds)} files (or these with .gz), found "
            f"{unreadable or 'none of them'} in {path}. Point data.path at such files."
        )
    return files


def _existing(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(
            f"data.path={path} was asked for, but nothing is there (working directory: {Path.cwd()}). Correct the path."
        )
    return found


def _load_from_hub(path: str, arguments: Mapping[str, Any]) -> datasets.DatasetDict:
    try:
        return datasets.load_dataset(path, **arguments)
    except (OSError, HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"The data set {path!r} was asked for, but the Hugging Face hub did not deliver it: {error}. Check the "
            "name and the network, or point data.path at a local copy: a file, or a folder of files named by split."
        ) from error


def _load_files(kind: str, arguments: Mapping[str, Any]) -> datasets.DatasetDict:
    try:
        return datasets.load_dataset(kind, **arguments)
    except _UNREADABLE as error:
        cause = error.__cause__ or error
        remedy = "Check the files, or say how to read them in data.options."
        if isinstance(cause, UnicodeDecodeError):
            remedy = "Convert the files to UTF-8, or name their encoding: data.options={encoding: latin-1}, utf-16, ..."
        raise ValueError(
            f"{arguments['data_files']} could not be read as {kind}: {str(cause).strip()}. {remedy}"
        ) from error


def _by_split(loaded: datasets.DatasetDict, path: str | Mapping[str, str]) -> dict[str, datasets.Dataset]:
    splits: dict[str, datasets.Dataset] = {}
    for name, rows in loaded.items():
        split = split_named(str(name))
        if split is not None:
            splits.setdefault(split, rows)
    if not splits and len(loaded) == 1:
        splits["train"] = next(iter(loaded.values()))
    if "train" not in splits:
        raise ValueError(
            f"A data set needs a train split, but {path} has {sorted(map(str, loaded))}. Name the training files train."
        )
    return splits
