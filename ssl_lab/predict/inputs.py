"""Turn a user's inputs into named samples: files, folders, tables, texts, pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lab.data.base import DataModule, Sample
from ssl_lab.data.files.inventory import DataFile, left_out_note
from ssl_lab.data.files.layout import shown

_NAMED = 3  # files that a message names


@dataclass(frozen=True, kw_only=True)
class Given:
    """A sample and where it came from.

    Attributes:
        sample: What is read.
        origin: Columns of its row that say where it came from: ``path``, ``row`` of a table, counted from 0, ``id``.
        shown: Its texts, which stand in its row too.
    """

    sample: Sample
    origin: Mapping[str, Any]
    shown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return ":".join(map(str, self.origin.values()))


def from_files(
    places: Sequence[Path],
    datamodule: DataModule,
    columns: Mapping[str, str] | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    setting: str = "input",
) -> tuple[list[Given], list[Path]]:
    """Samples of files, and of all files in folders, in their order; those of a folder in the order of their paths.

    Args:
        places: Files and folders.
        datamodule: Data like that of the run, which says which files it reads.
        columns: The column of a table that holds each part of a sample; its own names for those that are missing.
        fields: The parts of a sample that are needed, and their columns; None for all.
        setting: The setting that names the places, for messages.

    Returns:
        The samples, and files of folders that are of another kind and left out.

    Raises:
        FileNotFoundError: If a place does not exist.
        ValueError: If ``columns`` names what is no part of a sample, a file is of another kind, or a folder holds none.
    """
    fields = dict(datamodule.fields if fields is None else fields)
    endings = datamodule.given_endings
    if not fields or not endings:
        datamodule.samples_in(Path(), fields)  # which says that there are none
    if unknown := sorted(set(columns or {}) - set(fields)):
        raise ValueError(
            f"Cannot use columns={{{unknown[0]}: ...}}: a sample of this run consists of {' and '.join(fields)}. Name the "
            f"columns of a table that hold them: columns={{{next(iter(fields))}: NAME}}."
        )
    found: list[Given] = []
    left_out: list[Path] = []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(
                f"Cannot read {setting}={place}: no such file or folder (working directory: {Path.cwd()}). Correct the path."
            )
        if not place.is_dir():
            _check_kind(place, endings, setting)
            found += _samples_of(place, datamodule, {**fields, **(columns or {})})
            continue
        files = files_below(place)
        fitting = [file for file in files if file.name.lower().endswith(endings)]
        if not fitting:
            others = f" ({', '.join(file.name for file in files[:_NAMED])})" if files else ""
            raise ValueError(
                f"Cannot read {setting}={place}: none of the {len(files)} files in it{others} ends in "
                f"{', '.join(endings[:8])}. Give another folder, or name the file."
            )
        left_out += [file for file in files if not file.name.lower().endswith(endings)]
        for file in fitting:
            found += _samples_of(file, datamodule, {**fields, **(columns or {})})
    return found, left_out


def _check_kind(file: Path, endings: Sequence[str], setting: str) -> None:
    if not file.name.lower().endswith(tuple(endings)):
        raise ValueError(
            f"Cannot read {setting}={file}: this run reads files that end in {', '.join(endings[:8])}. Give such a file, or "
            "a folder of them."
        )


def _samples_of(file: Path, datamodule: DataModule, fields: Mapping[str, str]) -> list[Given]:
    samples = datamodule.samples_in(file, fields)
    alone = len(samples) == 1 and file in samples[0].values()  # the file itself, such as a picture
    return [
        Given(
            sample=sample,
            origin={"path": str(file)} if alone else {"path": str(file), "row": row},
            shown=texts_of(sample),
        )
        for row, sample in enumerate(samples)
    ]


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and the folders in it, but hidden ones, in the order of their paths.

    Links are followed. A warning counts what cannot be read: links that lead back to a folder around them or nowhere, and
    folders without permission.
    """
    left_out: dict[str, list[DataFile]] = {}
    found = sorted(walk_files(folder, left_out), key=lambda file: file.parts)
    if left_out:
        warnings.warn(f"{shown(str(folder))}: {len(found):,} files{left_out_note(left_out)}.", stacklevel=2)
    return found


def walk_files(folder: Path, left_out: dict[str, list[DataFile]]) -> Iterator[Path]:
    """The files of :func:`files_below`, one by one; those that cannot be read go to ``left_out``, by reason."""
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset([_real(folder)]))]
    read = {_real(folder)}
    while waiting:
        place, around = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            left_out.setdefault("not readable", []).append(_named(place, folder))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = place / entry.name
            if os.path.isfile(path):
                yield path
            elif not os.path.isdir(path):
                reason = "neither file nor folder" if os.path.exists(path) else "dangling link"
                left_out.setdefault(reason, []).append(_named(path, folder))
            elif (real := _real(path)) in around:
                left_out.setdefault("looping link", []).append(_named(path, folder))
            elif real in read:
                left_out.setdefault("folder already read by another name", []).append(_named(path, folder))
            else:
                read.add(real)
                waiting.append((path, around | {real}))


def _real(folder: Path) -> tuple[int, int]:
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _named(path: Path, folder: Path) -> DataFile:
    parts = path.relative_to(folder).parts
    return DataFile(parts, os.sep.join(parts))


def from_python(
    inputs: Any,
    datamodule: DataModule,
    columns: Mapping[str, str] | None = None,
    *,
    fields: Mapping[str, str] | None = None,
) -> list[Given]:
    """The same of values in Python: one or several.

    Args:
        inputs: For images paths of files and folders, or pixels of one picture or of many (N, H, W, C) or (N, C, H, W), or
            Pillow's images; for texts strings, or for samples of several parts mappings or tuples of their parts.
            ``pathlib.Path`` is a file or a folder for all.
        datamodule: Data like that of the run.
        columns: As of :func:`from_files`.
        fields: As of :func:`from_files`.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If there is no input, or one has other parts than a sample.
    """
    needed = datamodule.fields if fields is None else fields
    if not needed:
        datamodule.samples_in(Path(), {})  # which says that there are none
    found: list[Given] = []
    if isinstance(inputs, str) and is_text(datamodule) and os.path.exists(inputs):
        raise ValueError(
            f"Cannot tell whether {inputs!r} is a text or the file or folder of that name. Give a text as [text], or a path "
            "as pathlib.Path."
        )
    for number, each in enumerate(_each(inputs)):
        if isinstance(each, str) and not is_text(datamodule):
            if not os.path.exists(each):
                raise FileNotFoundError(
                    f"Cannot read {each[:200]!r}: there is no such file or folder (working directory: {Path.cwd()}). "
                    "Correct the path."
                )
            each = Path(each) if os.path.isdir(each) else each
        if isinstance(each, Path):
            found += from_files([each], datamodule, columns, fields=needed)[0]
            continue
        sample = _sample(each, tuple(needed))
        named = each if isinstance(each, str) and not is_text(datamodule) else None
        origin: dict[str, Any] = {"path": named} if named is not None else {"id": number}
        found.append(Given(sample=sample, origin=origin, shown=texts_of(sample) if named is None else {}))
    if not found:
        raise ValueError("There are no inputs. Give at least one file, text or picture.")
    return found


def from_texts(
    texts: Mapping[str, str], datamodule: DataModule, *, fields: Mapping[str, str] | None = None
) -> list[Given]:
    """One sample whose parts are given one by one.

    Raises:
        ValueError: If a sample of the run has other parts.
    """
    parts = tuple(datamodule.fields if fields is None else fields)
    if not is_text(datamodule):
        raise ValueError("Cannot read text=: this run reads no texts. Give input=FILE or input=FOLDER.")
    if set(texts) != set(parts):
        needed = " ".join(f"{name}='...'" for name in parts)
        raise ValueError(
            f"Cannot make a sample of {' and '.join(f'{name}=' for name in texts)}: one of this run consists of "
            f"{' and '.join(parts)}. Give {needed}, or a table as input=FILE."
        )
    sample = {name: texts[name] for name in parts}
    return [Given(sample=sample, origin={}, shown=sample)]


def fields_of_features(datamodule: DataModule) -> Mapping[str, str]:
    """The parts of a sample that its features are made of: of texts the text alone."""
    fields = datamodule.fields
    return {"text": fields["text"]} if "text" in fields else fields


def named(given: Sequence[Given]) -> str:
    """The first of some samples, in words."""
    names = [each.name or f"text {each.shown}" for each in given[:_NAMED]]
    return ", ".join([*names, *(["..."] if len(given) > _NAMED else [])])


def unread(datamodule: DataModule) -> str:
    """Why samples of this data cannot be read."""
    return "they are blank" if "text" in datamodule.fields else "they are not pictures, or are damaged"


def is_text(datamodule: DataModule) -> bool:
    """Whether samples are made of texts, which can be given as they are."""
    return "text" in datamodule.fields


def texts_of(sample: Sample) -> dict[str, Any]:
    """The parts of a sample that can be read in a table."""
    return {name: value for name, value in sample.items() if isinstance(value, str)}


def _each(inputs: Any) -> Iterable[Any]:
    """Single inputs: a text, path, mapping or picture is one, all else is many."""
    if isinstance(inputs, str | os.PathLike | Mapping | bytes):
        return [Path(inputs) if isinstance(inputs, os.PathLike) else inputs]
    axes = getattr(inputs, "ndim", None)
    if axes in (2, 3) or type(inputs).__module__.startswith("PIL."):
        return [inputs]
    return (Path(each) if isinstance(each, os.PathLike) else each for each in inputs)


def _sample(value: Any, fields: Sequence[str]) -> Sample:
    """A sample of one value, of several in the order of its parts, or by their names."""
    if isinstance(value, Mapping) and set(value) == set(fields):
        return {name: value[name] for name in fields}
    if len(fields) == 1 and not isinstance(value, Mapping):
        return {fields[0]: value}
    if isinstance(value, tuple | list) and len(value) == len(fields):
        return dict(zip(fields, value, strict=True))
    found = ", ".join(map(str, value)) if isinstance(value, Mapping) else f"{value!r:.60}"
    raise ValueError(
        f"Cannot make a sample of {found}: one of this run consists of {' and '.join(fields)}. Give a dict with these keys"
        f"{', or a tuple in this order' if len(fields) > 1 else ''}."
    )
