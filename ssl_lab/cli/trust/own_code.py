"""Python files of the current folder: imported only if a command names them, and never instead of installed ones."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class OwnModules(MetaPathFinder):
    """Finds modules of a folder by name, behind all other finders; it knows only those that were named to it."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's file, if it is one of those."""
        folder = self.folders.get(fullname)
        return None if folder is None or path is not None else PathFinder.find_spec(fullname, [str(folder)])


_FINDER = OwnModules()


def provide(target: str) -> list[str]:
    """Let the module of a target be found in the own folder, with those files beside it that it imports.

    Nothing is imported, and a module that is installed stays what it is.

    Args:
        target: Dotted name of a class.

    Returns:
        The files, relative to the folder; empty if the module does not lie there.
    """
    folder = Path.cwd()
    found: dict[str, Path] = {}
    waiting = [target.partition(".")[0]]
    while waiting:
        name = waiting.pop()
        file = _file_of(name, folder)
        if name in found or file is None:
            continue
        found[name] = file
        waiting += _imported(file)
    for name in found:
        _FINDER.folders[name] = folder
    if found and _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    return [str(file.relative_to(folder)) for file in found.values()]


def lies_in_folder(target: str) -> bool:
    """Return whether the module of a target is a file of the own folder and nothing that is installed has its name."""
    return _file_of(target.partition(".")[0], Path.cwd()) is not None


def is_known(name: str) -> bool:
    """Return whether a module of this name exists, in the own folder or installed. Imports nothing."""
    if name in sys.modules or name in sys.stdlib_module_names or _file_of(name, Path.cwd()) is not None:
        return True
    return any(finder.find_spec(name, None) is not None for finder in sys.meta_path if finder is not _FINDER)


def forget_working_folder() -> None:
    """Take the working folder off the places that Python imports from, where ``python -m`` has put it.

    What the folder holds would be taken for a library of its name, such as an optional one that another library asks for.
    """
    main = sys.modules.get("__main__")
    started_by_name = getattr(main, "__spec__", None) is not None and not sys.flags.safe_path
    package = Path(__file__).resolve().parents[3]
    here = Path.cwd().resolve()
    if started_by_name and sys.path and Path(sys.path[0]).resolve() == here and here != package:
        del sys.path[0]


def _file_of(name: str, folder: Path) -> Path | None:
    if name in sys.stdlib_module_names or not name.isidentifier():
        return None
    if name in sys.modules or _installed(name, folder):
        module = sys.modules.get(name)
        if module is None or not _below(getattr(module, "__file__", None), folder):
            return None
    for path in (folder / f"{name}.py", folder / name / "__init__.py"):
        if path.is_file():
            return path
    return folder / name if any((folder / name).glob("*.py")) else None


def _installed(name: str, folder: Path) -> bool:
    """Return whether a module of this name comes from anywhere but the folder."""
    specs = (finder.find_spec(name, None) for finder in sys.meta_path if finder is not _FINDER)
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return not (places and all(_below(place, folder) for place in places))


def _below(place: str | None, folder: Path) -> bool:
    return place is not None and Path(place).resolve().is_relative_to(folder.resolve())


def _imported(file: Path) -> Iterator[str]:
    """Top-level names that the code of a file or package imports."""
    package = file if file.is_dir() else file.parent if file.name == "__init__.py" else None
    for path in sorted(package.rglob("*.py")) if package else [file]:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # which its import tells
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]
