"""What a file is good for, as far as its name, size and first bytes tell."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

SYSTEM_FOLDERS = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".gz")
_ABOUT = (
    "readme", "license", "licence", "copying", "citation", "notice", "changelog", "requirements", "dataset_info",
    "dataset_infos", "dataset_dict",
)  # fmt: skip
_ABOUT_ENDINGS = (".txt", ".json")
_POINTER, _LONGEST_POINTER = b"version https://git-lfs.github.com/", 1024


def unusable(
    name: str, facts: os.stat_result, path: str, kinds: Collection[str], ending: Callable[[str], str]
) -> str | None:
    """Why a file cannot be used, as far as its name and size tell."""
    if not stat.S_ISREG(facts.st_mode):
        return "neither file nor folder"
    kind = ending(name)
    if kind not in kinds:
        gz = ".gz" if name.lower().endswith(".gz") and kind != ".gz" else ""
        return "packed" if kind in ARCHIVES or kind + gz == ".gz" else f"{kind}{gz}" or "without ending"
    if (kind in _ABOUT_ENDINGS and Path(name).stem.lower() in _ABOUT) or name == "state.json":  # of datasets, on a disk
        return "about the data"
    if facts.st_size == 0:
        return "empty"
    if facts.st_size < _LONGEST_POINTER and os.access(path, os.R_OK) and Path(path).read_bytes().startswith(_POINTER):
        return "not yet fetched by git lfs pull"
    return None if os.access(path, os.R_OK) else "not readable"


def suffix(name: str) -> str:
    """The ending of a file's name in lower case, a .gz after it aside."""
    stem, ending = os.path.splitext(name)
    return (os.path.splitext(stem)[1] if ending.lower() == ".gz" else ending).lower()
