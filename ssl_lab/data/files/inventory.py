"""The user's files: each is used in one split, refused, or counted as left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.files.copies import Copy, copies
from ssl_lab.data.files.layout import Layout, Parts, first_of, shown
from ssl_lab.data.splits import split_named, splits_in
from ssl_lab.data.store import fingerprint

Source: TypeAlias = str | Mapping[str, str | Sequence[str]]
"""A file, a folder, or one or several of them for each split."""

_SYSTEM_FOLDERS = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".gz")
_ABOUT = (
    "readme", "license", "licence", "copying", "citation", "notice", "changelog", "requirements", "dataset_info",
    "dataset_infos", "dataset_dict",
)  # fmt: skip
_ABOUT_ENDINGS = (".txt", ".json")
_LOST = ("empty", "not readable", "dangling link", "packed", "neither file nor folder")
"""Reasons for which a file that may have been meant as data cannot be used."""


class NoUsableFilesError(ValueError):
    """No file at a place is of the kinds that are asked for."""


class DataFile(NamedTuple):
    """A file or folder.

    Attributes:
        parts: Its path below the folder that was named; below the split and its number where each split names some.
        path: Where it is.
        start: Where the part of the path begins that messages show.
        real: Device and inode.
        linked: Whether it was reached through a link.
        facts: Size in bytes, and times of modification and of the last change of any kind, in ns.
    """

    parts: Parts
    path: str
    start: int = 0
    real: tuple[int, int] = (0, 0)
    linked: bool = False
    facts: tuple[int, int, int] = (0, 0, 0)

    @property
    def name(self) -> str:
        """The path as messages show it."""
        return self.path[self.start :]


@dataclass
class _Found:
    """Content of a place: usable files, files left out by reason, and the folders searched."""

    files: list[DataFile] = field(default_factory=list)
    left_out: dict[str, list[DataFile]] = field(default_factory=dict)
    folders: list[Parts] = field(default_factory=list)

    def leave_out(self, reason: str, file: DataFile) -> None:
        self.left_out.setdefault(reason, []).append(file)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Files of each split.

    Attributes:
        files: Files by split, in order of path.
        groups: Folders of each of these files below the root, without the one that says the split.
        again: Further paths of files of the same split: the group of a path, the path, and the same of the one that is used.
        bare: Folders that hold no usable file, without the one that says the split.
        left_out: Files by reason; a folder stands for all below it.
    """

    files: Mapping[str, list[DataFile]]
    groups: Mapping[str, list[Parts]]
    again: Sequence[tuple[Parts, str, Parts, str]]
    bare: Sequence[Parts]
    left_out: Mapping[str, list[DataFile]]

    @property
    def paths(self) -> dict[str, list[Path]]:
        """Paths by split."""
        return {split: [Path(file.path) for file in files] for split, files in self.files.items()}

    def facts(self, *, strict: bool = True) -> list[Any]:
        """Split, relative path, size and times of each file: plain data that change whenever a file does.

        Args:
            strict: Include the time at which content, name or rights changed last, which no program can set back. Without
                it a copy that keeps modification times has the same facts.
        """
        return [
            [split, os.sep.join(file.parts), *(file.facts if strict else file.facts[:2])]
            for split, files in self.files.items()
            for file in files
        ]

    @property
    def digest(self) -> str:
        """Short hash of splits, relative paths, sizes and modification times; a faithful copy has the same."""
        return fingerprint(self.facts(strict=False))

    def line(self) -> str:
        """Describe the number of files in each split, and the files left out with the reason."""
        counts = [f"{split} {len(files):,} file{'s' * (len(files) != 1)}" for split, files in self.files.items()]
        return ", ".join(counts) + left_out_note(self.left_out)

    def tell(self, title: str, *notes: str) -> None:
        """Print the line and how many files are copies of others, on the first rank, once for each data set."""
        files = {
            split: [Copy(file.path, file.name, file.facts[0]) for file in each] for split, each in self.files.items()
        }
        tell_once(f"{shown(title)}: {'; '.join([self.line(), *notes, *copies(files, self.facts())])}.")


@cache
@rank_zero_only
def tell_once(line: str) -> None:
    """Print a line on the first rank, the first time that this process has it."""
    print(line, flush=True)


def left_out_note(left_out: Mapping[str, Sequence[DataFile]]) -> str:
    """Describe the files left out and the reason, as the end of a sentence; empty if there are none."""
    number = sum(map(len, left_out.values()))
    reasons = []
    for reason, files in sorted(left_out.items()):
        plural = "s" if reason.endswith("link") and len(files) > 1 else ""
        reasons.append(f"{len(files):,} {reason}{plural} ({first_of([file.name for file in files], num=2)})")
    return f", {number:,} left out: {', '.join(reasons)}" if number else ""


def take_inventory(
    source: Source,
    kinds: Collection[str],
    *,
    setting: str = "data.path",
    ending: Callable[[str], str] | None = None,
    one_of_many: bool = False,
    aside: Collection[str] = (),
) -> Inventory:
    """Look through files and folders once, and plan the splits.

    Links are followed. A real file is used once, under its own path rather than a link's, however many paths lead to it; only
    ``train`` and ``pretrain`` may share one.

    Args:
        source: A file, a folder, or one or several of them for each split.
        kinds: Endings of usable files.
        setting: The setting that names them, for messages.
        ending: The ending of a file's name; by default its suffix in lower case, a ``.gz`` after it aside.
        one_of_many: A file is one sample of many, as an image is, and its name rarely means something.
        aside: Endings of files that are looked at elsewhere, and are not counted as left out here.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If there are no usable files, the layout is unclear, or a real file is in two splits.
    """
    found = _Found()
    ending = ending or suffix
    where = str(source) if isinstance(source, str) else setting
    if isinstance(source, str):
        _look(_existing(source, setting), (), kinds, ending, found)
    else:
        for key, named in source.items():
            if split_named(key) is None:
                raise ValueError(
                    f"Cannot read {setting}: {key!r} is not a split. Splits are train, val, test and unlabeled; name each "
                    f"once: {setting}={{train: ..., test: ...}}."
                )
            for number, place in enumerate(places(named)):
                _look(_existing(place, setting), (key, str(number)), kinds, ending, found)
    for kind in aside:
        found.left_out.pop(kind, None)
    if not found.files:
        raise NoUsableFilesError(
            f"Cannot read {shown(where)}: a data set is made of {first_of(list(kinds), num=8)} files, found none of them"
            f"{left_out_note(found.left_out)}. Point {setting} at such files."
        )
    _leave_out_packed_copies(found)
    found.files.sort(key=lambda file: (file.linked, file.parts))
    first: dict[tuple[int, int], DataFile] = {}
    again = [(file, kept) for file in found.files if (kept := first.setdefault(file.real, file)) is not file]
    distinct = sorted(first.values())
    split_of: Callable[[Parts], str | None] = _split_of_key
    group_of: Callable[[Parts], Parts] = _group_below_key
    if isinstance(source, str):
        paths = [file.parts for file in distinct]
        layout = Layout(paths, where=shown(where), setting=setting, one_of_many=one_of_many)
        split_of, group_of = layout.split, layout.group
    return _plan(found, distinct, again, split_of, group_of, where=shown(where))


def _leave_out_packed_copies(found: _Found) -> None:
    plain = {file.path for file in found.files}
    copies = [file for file in found.files if file.path.endswith(".gz") and file.path[:-3] in plain]
    for file in copies:
        found.leave_out("gzipped copy of a file beside it", file)
    found.files = [file for file in found.files if file not in set(copies)] if copies else found.files


def _split_of_key(parts: Parts) -> str | None:
    return split_named(parts[0])


def _group_below_key(parts: Parts) -> Parts:
    return parts[2:-1]


def _plan(
    found: _Found,
    distinct: Sequence[DataFile],
    again: Sequence[tuple[DataFile, DataFile]],
    split_of: Callable[[Parts], str | None],
    group_of: Callable[[Parts], Parts],
    *,
    where: str,
) -> Inventory:
    """Sort files into splits; refuse a file in two splits, and a split without a usable file."""
    splits: dict[str, list[DataFile]] = {}
    for file in distinct:
        splits.setdefault(str(split_of(file.parts)), []).append(file)
    same_split = []
    shared = set()
    for file, kept in again:
        split, other = split_of(file.parts), str(split_of(kept.parts))
        if {split, other} == {"train", PRETRAIN} and file.real not in shared:
            shared.add(file.real)
            splits.setdefault(str(split), []).append(file)
            continue
        if split not in (None, other) and {split, other} != {"train", PRETRAIN}:
            raise ValueError(
                f"Cannot use {where}: {shown(file.name)} in {split} and {shown(kept.name)} in {other} are one file. Remove "
                "one of them."
            )
        same_split.append((group_of(file.parts), file.name, group_of(kept.parts), kept.name))
        found.leave_out("already read by another name", file)
    used = {file.parts[:k] for files in splits.values() for file in files for k in range(1, len(file.parts))}
    bare = [parts for parts in found.folders if parts not in used]
    missing = {split_of((*parts, "")): os.sep.join(parts) for parts in bare}
    missing |= {split_of(file.parts): file.name for reason in _LOST for file in found.left_out.get(reason, ())}
    for split, name in missing.items():
        if split is not None and split not in splits:
            raise ValueError(
                f"Cannot use {where}: {shown(name)} is named after {split}, but {split} has no file that can be used"
                f"{left_out_note(found.left_out)}. Fill it, or remove it."
            )
    order = [split for split in ("train", "val", "test", PRETRAIN) if split in splits]
    splits = {split: sorted(splits[split]) for split in order}
    return Inventory(
        files=splits,
        groups={split: [group_of(file.parts) for file in files] for split, files in splits.items()},
        again=same_split,
        bare=[group_of((*parts, "")) for parts in bare if split_of((*parts, "")) is not None],
        left_out=found.left_out,
    )


def _look(root: Path, prefix: Parts, kinds: Collection[str], ending: Callable[[str], str], found: _Found) -> None:
    """List the files at a path.

    A linked folder is looked into once for each two names that a path begins with and each sequence of names of splits in
    it: a second time can find nothing that matters.
    """
    facts = root.stat()
    if not stat.S_ISDIR(facts.st_mode):
        reason = _unusable(root.name, facts, str(root), kinds, ending)
        if reason is not None:
            raise ValueError(
                f"Cannot read {shown(str(root))}: it is {reason}. A data set is made of "
                f"{first_of(list(kinds), num=8)} files."
            )
        start = 0 if prefix else len(str(root)) - len(root.name)
        found.files.append(_as_file((*prefix, root.name), str(root), start, facts, linked=False))
        return
    start = 0 if prefix else len(os.path.join(root, ""))
    top = (facts.st_dev, facts.st_ino)
    seen = set()
    waiting: list[tuple[str, Parts, frozenset[tuple[int, int]], bool]] = [(str(root), (), frozenset([top]), False)]
    while waiting:
        folder, below, around, linked = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.leave_out("not readable", DataFile((*prefix, *below), os.path.join(folder, ""), start))
            continue
        for entry in entries:
            here = (*below, entry.name)
            file = DataFile((*prefix, *here), entry.path, start)
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                found.leave_out("hidden", file)
                continue
            try:
                facts = entry.stat()
            except OSError:
                found.leave_out("dangling link" if entry.is_symlink() else "not readable", file)
                continue
            is_linked = linked or entry.is_symlink()
            real = (facts.st_dev, facts.st_ino)
            if not stat.S_ISDIR(facts.st_mode):
                reason = _unusable(entry.name, facts, entry.path, kinds, ending)
                if reason is not None:
                    found.leave_out(reason, file)
                else:
                    found.files.append(_as_file(file.parts, entry.path, start, facts, linked=is_linked))
                continue
            view = (real, here[:2], tuple(name for name in here if splits_in(name)))
            if real in around:
                found.leave_out("looping link", file)
            elif is_linked and view in seen:
                found.leave_out("already read by another name", file)
            else:
                seen.add(view)
                found.folders.append((*prefix, *here))
                waiting.append((entry.path, here, around | {real}, is_linked))


def folder_facts(folder: Path) -> list[Any]:
    """Relative path, size and times of every file below a folder, links followed: plain data that change with the files."""
    found = _Found()
    _look(folder, (), ("",), lambda name: "", found)
    return [[os.sep.join(file.parts), *file.facts] for file in sorted(found.files)]


def _as_file(parts: Parts, path: str, start: int, facts: os.stat_result, *, linked: bool) -> DataFile:
    return DataFile(
        parts, path, start, (facts.st_dev, facts.st_ino), linked, (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    )


def _unusable(
    name: str, facts: os.stat_result, path: str, kinds: Collection[str], ending: Callable[[str], str]
) -> str | None:
    """Why a file cannot be used, as far as its name and size tell."""
    if not stat.S_ISREG(facts.st_mode):
        return "neither file nor folder"
    kind = ending(name)
    if kind not in kinds:
        gz = ".gz" if name.lower().endswith(".gz") and kind != ".gz" else ""
        return "packed" if kind in _ARCHIVES or kind + gz == ".gz" else f"{kind}{gz}" or "without ending"
    if kind in _ABOUT_ENDINGS and Path(name).stem.lower() in _ABOUT:
        return "about the data"
    if facts.st_size == 0:
        return "empty"
    return None if os.access(path, os.R_OK) else "not readable"


def suffix(name: str) -> str:
    """The ending of a file's name in lower case, a .gz after it aside."""
    stem, ending = os.path.splitext(name)
    return (os.path.splitext(stem)[1] if ending.lower() == ".gz" else ending).lower()


def _existing(path: str, setting: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(
            f"Cannot read {setting}={shown(path)}: no such file or folder (working directory: {Path.cwd()}). "
            "Correct the path."
        )
    return found


def places(source: Source | Sequence[str]) -> list[str]:
    """The files and folders that are named."""
    if isinstance(source, str):
        return [source]
    return (
        [place for named in source.values() for place in places(named)] if isinstance(source, Mapping) else list(source)
    )


def title_of(source: Source) -> str:
    """The last part of a path; where each split names some, the folder of the first."""
    path = os.path.abspath(Path(places(source)[0]).expanduser())
    return os.path.basename(path if isinstance(source, str) else os.path.dirname(path))
