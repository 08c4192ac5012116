"""Where the configuration lives."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> Path:
    """The folder of Hydra groups: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def own_config_dir() -> Path | None:
    """``conf/`` in the working folder, with groups of one's own; None if there is none or it is the package's."""
    own = Path.cwd() / "conf"
    return own if own.is_dir() and own.resolve() != config_dir() else None


def choices(group: str) -> dict[str, str]:
    """Names of a group's files, one's own behind those of the package, with the one-line description at their top."""
    described: dict[str, str] = {}
    for folder in filter(None, (config_dir(), own_config_dir())):
        for path in sorted((folder / group).glob("*.yaml")):
            lines = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
            described.setdefault(path.stem, lines[0].lstrip("# ").strip() if lines else "")
    return described
