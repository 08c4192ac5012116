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


def no_run(run_dir: Path, missing: str) -> FileNotFoundError:
    """The error for a ``run=`` that is not a run; suggests runs nearby.

    Args:
        run_dir: The path that was given.
        missing: The file of a run that it lacks.
    """
    several = [part.strip() for part in str(run_dir).split(",")]
    below = ("*", "*/*") if run_dir.is_dir() else ()  # a fine-tuning holds a run for each start and seed
    inside = sorted(path.parent for depth in below for path in run_dir.glob(f"{depth}/{missing}"))
    if len(several) > 1 and all(Path(part, missing).is_file() for part in several):
        advice = f"ssl-lab evaluate takes several runs as 'run=[{','.join(several)}]'."
    elif inside:
        advice = f"It holds {len(inside)} run{'s' * (len(inside) > 1)}: give one, such as run={inside[0]}."
    else:
        advice = "Give run= a directory below runs/."
    return FileNotFoundError(f"{run_dir} is not a run directory: it has no {missing}. {advice}")


def tuned_run(run_dir: Path) -> Path:
    """The training that the directory of a fine-tuning means: itself if it is a run, else its only one of pretrained weights.

    Without one of pretrained weights, it is the only one of random weights.

    Raises:
        ValueError: If it holds several, naming them.
    """
    if (run_dir / "config.yaml").is_file() or not (run_dir / "finetune.json").is_file():
        return run_dir
    for start in ("pretrained", "random"):
        found = sorted(path.parent for path in run_dir.glob(f"{start}/seed_*/config.yaml"))
        if len(found) > 1:
            names = ", ".join(str(path) for path in found)
            raise ValueError(
                f"Cannot predict with {run_dir}: it holds trainings with {len(found)} seeds. Give one of them as run=: "
                f"{names}."
            )
        if found:
            return found[0]
    return run_dir


def choices(group: str) -> dict[str, str]:
    """Names of a group's files, one's own behind those of the package, with the one-line description at their top."""
    described: dict[str, str] = {}
    for folder in filter(None, (config_dir(), own_config_dir())):
        for path in sorted((folder / group).glob("*.yaml")):
            lines = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.startswith("#") and "@package" not in line
            ]
            described.setdefault(path.stem, lines[0].lstrip("# ").strip() if lines else "")
    return described
