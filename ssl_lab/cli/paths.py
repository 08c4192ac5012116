"""Where the configuration lives."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> Path:
    """The folder of Hydra groups: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def choices(group: str) -> dict[str, str]:
    """Names of a group's files with the one-line description that each begins with."""
    described = {}
    for path in sorted((config_dir() / group).glob("*.yaml")):
        lines = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
        described[path.stem] = lines[0].lstrip("# ").strip() if lines else ""
    return described
