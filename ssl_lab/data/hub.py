"""Hugging Face data sets, from the hub or from local files, by split."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import HfHubHTTPError

from ssl_lab.data.files.csv_files import check_lines
from ssl_lab.data.files.inventory import Source, suffix, take_inventory, tell_once, title_of
from ssl_lab.data.files.sources import FORMATS, is_local
from ssl_lab.data.files.tables import check_csv, csv_options
from ssl_lab.data.files.text_files import check_texts
from ssl_lab.data.hugging_face import datasets, pyarrow
from ssl_lab.data.splits import split_named
from ssl_lab.data.store import fingerprint

_OF_THE_LOADER = {
    *("path", "cache_dir", "token", "storage_options", "download_config", "download_mode", "save_infos"),
    *("trust_remote_code", "split", "streaming"),
}
"""Arguments of ``datasets.load_dataset`` that settings do not give."""
# What the library and its readers raise on damaged files.
_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, pyarrow.ArrowException,
    datasets.exceptions.DatasetGenerationError,
)  # fmt: skip
_NO_ROWS = ("corresponds to no data", "at least one example")
"""Messages of the library about files without rows."""


def load_splits(
    path: Source,
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    sample_by: str | None = None,
    words: Collection[str | None] = (),
    aside: Collection[str] = (),
    tell: bool = True,
) -> dict[str, datasets.Dataset]:
    """Data by split, memory-mapped: ``train``, and where they exist ``val``, ``test`` and ``pretrain``.

    Args:
        path: Identifier on the hub; or a local parquet, csv, tsv, json, jsonl or txt file, gzipped or not; or a folder
            of such files; or files or folders for each split. See :func:`take_inventory`.
        name: Name of the configuration, for a data set of the hub that has several.
        options: Further arguments of ``datasets.load_dataset``, such as ``sep`` for csv.
        sample_by: What is one sample of plain text: ``line``, ``paragraph`` or ``document``.
        words: Columns, if they are there, whose cells are words: as written, ``007`` of a csv file too, and never bytes.
        aside: Endings of files that rows name, which are therefore not left out.
        tell: Print which files are which split, beside what was odd about them.

    Raises:
        FileNotFoundError: If the path does not exist or the hub cannot be reached.
        ValueError: If the files are of no known kind, or the data cannot be read.
    """
    given, options = options, dict(options or {})
    if unwanted := sorted(_OF_THE_LOADER & set(options)):
        raise ValueError(
            f"data.options.{unwanted[0]} is not taken: it says where the library reads and writes. Point data.path at the "
            "files; the environment says the rest (HF_HOME, HF_TOKEN)."
        )
    if isinstance(path, str) and not is_local(path):
        if outside := [text for text in _texts(options) if _leads_out(text)]:
            raise ValueError(
                f"data.options names {outside[0]!r}, which lies outside of the data set {path}. Point data.path at the files."
            )
        return as_words(_by_split(_load_from_hub(path, {"name": name, **options}), path), words)
    if elsewhere := sorted({"data_files", "data_dir"} & set(options)):
        raise ValueError(f"data.options.{elsewhere[0]} is not taken beside local files. Point data.path at the files.")
    inventory = take_inventory(path, tuple(FORMATS), aside=aside)
    files = inventory.paths
    kinds = {suffix(file.name) for split_files in files.values() for file in split_files}
    formats = {FORMATS[kind] for kind in kinds}
    if len(formats) > 1:
        raise ValueError(
            f"The files of a data set must be of one kind, found {sorted(kinds)} in {path}. "
            "Give one file for each split: data.path={train: ..., test: ...}."
        )
    every = [file for split_files in files.values() for file in split_files]
    notes = []
    if formats != {"parquet"} and "encoding" not in options:
        check_texts(every)
    if formats == {"csv"}:
        options = csv_options(kinds, every) | options
        notes.append(check_lines(every, options, title=title_of(path), trusted="quoting" in (given or {})))
        options = {"converters": {column: str for column in words if column is not None}} | options
    if tell or any(notes):
        inventory.tell(title_of(path), *filter(None, notes))
    if formats == {"text"}:
        options = {"sample_by": sample_by or "line", "encoding": "utf-8-sig"} | options
    odd = [str(file) for file in every if "::" in str(file)]
    if odd:
        raise ValueError(f"Cannot read {odd[0]}: the reader takes :: in a path for something else. Rename it.")
    # The library's cache looks at modification times alone; the name makes it look at all that we know.
    options = {"name": fingerprint(inventory.facts())} | options
    kind = formats.pop()
    loaded = datasets.DatasetDict()
    for split, split_files in files.items():
        # Each by itself: whole numbers in one and others in the next are both right.
        data_files = {split: [glob.escape(str(file)) for file in split_files]}
        with without_bars():
            loaded |= _load_files(kind, {"data_files": data_files, **options})
    splits = _by_split(loaded, path)
    if kind == "csv" and "sep" not in (given or {}) and "names" not in (given or {}):
        check_csv(splits, path)
    return as_words(splits, words)


@contextmanager
def without_bars() -> Iterator[None]:
    """Within it, the ``datasets`` library draws no progress bars; afterwards it does as before."""
    if datasets.are_progress_bars_disabled() or datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None:
        yield  # as the user's environment says
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _texts(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        node = list(node.values())
    if isinstance(node, str):
        return [node]
    return [text for below in node for text in _texts(below)] if isinstance(node, list | tuple) else []


def _leads_out(text: str) -> bool:
    """Return whether a data set names a file by an address, from the root, or through a parent folder."""
    return "://" in text or text.startswith(("/", "~")) or ".." in text.split("/")


def identity(splits: Mapping[str, datasets.Dataset]) -> list[tuple[str, str]]:
    """Plain data that change with the content of the splits."""
    return [(split, rows._fingerprint) for split, rows in sorted(splits.items())]


def as_words(splits: Mapping[str, datasets.Dataset], columns: Collection[str | None]) -> dict[str, datasets.Dataset]:
    """The splits with columns of bytes, or lists of them, read as UTF-8.

    Raises:
        ValueError: If bytes are none.
    """
    found = dict(splits)
    for split, rows in splits.items():
        for column in columns:
            feature = rows.features.get(column)
            of_list = isinstance(feature, datasets.List)
            if getattr(feature.feature if of_list else feature, "dtype", None) not in ("binary", "large_binary"):
                continue
            text = datasets.Value("large_string")
            try:
                with without_bars():
                    found[split] = found[split].cast_column(column, datasets.List(text) if of_list else text)
            except (ValueError, pyarrow.ArrowException) as error:
                raise ValueError(
                    f"Cannot read the column {column!r} of {split}: it holds bytes that are not UTF-8 text. Convert it, or "
                    "choose another column."
                ) from error
    return found


def _load_from_hub(path: str, arguments: Mapping[str, Any]) -> datasets.DatasetDict:
    if path in datasets.packaged_modules._PACKAGED_DATASETS_MODULES:  # readers of files and pickles, not data
        raise ValueError(
            f"data.path={path} names a reader of files. Point data.path at the files, or at a data set of the hub."
        )
    try:
        with without_bars():
            return datasets.load_dataset(path, **arguments)
    except (OSError, HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"Cannot load the data set {path!r}: the Hugging Face hub did not deliver it: {error}. Check the "
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
        if any(sign in str(cause) for sign in _NO_ROWS):
            raise ValueError(
                f"Cannot use {arguments['data_files']}: there is no row in it. Fill it, or remove it."
            ) from error
        raise ValueError(
            f"{arguments['data_files']} could not be read as {kind}: {str(cause).strip()}. {remedy}"
        ) from error


def _by_split(loaded: datasets.DatasetDict, path: Source) -> dict[str, datasets.Dataset]:
    """The data of each split, its parts joined; parts not named after a split are counted as left out."""
    named: dict[str, list[str]] = {}
    for name in map(str, loaded):
        named.setdefault(split_named(name) or "", []).append(name)
    unknown = named.pop("", [])
    if not named and len(unknown) == 1:
        named, unknown = {"train": unknown}, []
    if "train" not in named:
        raise ValueError(
            f"A data set needs a train split, but {path} has {sorted(map(str, loaded))}. Name the training files train."
        )
    if unknown or any(len(names) > 1 for names in named.values()):
        counts = [f"{split} {sum(len(loaded[name]) for name in names):,} rows" for split, names in named.items()]
        left_out = [f"{name} ({len(loaded[name]):,} rows)" for name in unknown]
        tell_once(f"{path}: {', '.join(counts)}" + (f", left out: {', '.join(left_out)}" if left_out else "") + ".")
    try:
        return {
            split: datasets.concatenate_datasets([loaded[name] for name in names])
            if len(names) > 1
            else loaded[names[0]]
            for split, names in named.items()
        }
    except (ValueError, TypeError, pyarrow.ArrowException) as error:
        several = [" and ".join(names) for names in named.values() if len(names) > 1]
        raise ValueError(
            f"Cannot join {', '.join(several)} of {path}: {error}. Load one of them, or give local files for each split."
        ) from error
