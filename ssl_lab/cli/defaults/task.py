"""The task of a fine-tuning that the command does not name: by its data, or by what the encoder of its run reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_lab.cli.paths import config_dir, own_config_dir
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.limited import load_json, load_yaml, printable
from ssl_lab.runs.directory import SPEC

DEFAULT_TASK = "classification"
"""The choice of ``conf/finetune.yaml``."""
_BY_DATA = {
    "ssl_lab.data.image.mask_folder.": "semantic_segmentation",
    "ssl_lab.data.image.": "image_classification",
    "ssl_lab.data.text.token_labels.": "token_classification",
    "ssl_lab.data.text.question_answering.": "question_answering",
    "ssl_lab.data.text.parallel_text.": "translation",
    "ssl_lab.data.text.": "classification",
}
"""The task that data are made for, by the beginning of their class; the first that fits counts."""
_BY_SPEC = {"ssl_lab.modalities.image.": "image_classification", "ssl_lab.modalities.text.": "classification"}
_PAIRS = "ssl_lab.data.text.text_pairs."


_HAS = {
    "semantic_segmentation": "holds images with masks",
    "image_classification": "holds images",
    "token_classification": "holds tagged words",
    "question_answering": "holds questions",
    "translation": "holds translations",
    "classification": "holds texts",
}


def with_task(overrides: Sequence[str]) -> list[str]:
    """Arguments of ``ssl-lab finetune`` with the task for what they name; prints one that is not the default."""
    task, reason = task_for(overrides) or (DEFAULT_TASK, "")
    if task == DEFAULT_TASK:
        return list(overrides)
    if is_first_rank():
        print(f"task={task}, as {printable(reason)}. Another one: task=NAME, see ssl-lab list tasks.", flush=True)
    return [*overrides, f"task={task}"]


def task_for(overrides: Sequence[str]) -> tuple[str, str] | None:
    """The task for what a command names, and the fact that it follows from.

    Only files are read, and nothing is imported. What cannot be read says nothing here: the command itself refuses it.

    Args:
        overrides: Arguments of ``ssl-lab finetune``.

    Returns:
        Task and reason; None if the command names a task, or nothing says which.
    """
    given = {key.lstrip("+~"): value for key, _, value in (one.partition("=") for one in overrides)}
    if "task" in given or "method" in given or "method._target_" in given:
        return None
    run = Path(given["run"].strip("'\"")) if given.get("run", "null") != "null" else None
    named = given.get("data", "null")
    if named != "null" or run is None:
        data = _choice("data", named)
        of = f"data={named}"
    else:
        data = _read(run / "config.yaml", run).get("data") or {}
        of = f"the data of {run}"
    target = str(data.get("_target_", ""))
    if target.startswith(_PAIRS) and (given.get("data.score_column") or data.get("score_column")):
        return "similarity", f"{of} has scores"
    for beginning, task in _BY_DATA.items():
        if target.startswith(beginning):
            return task, f"{of} {_HAS[task]}"
    if run is None:
        return None
    spec = str(_read(run / SPEC, run).get("_target_", ""))
    found = next((task for beginning, task in _BY_SPEC.items() if spec.startswith(beginning)), None)
    return None if found is None else (found, f"{run} reads {'images' if found.startswith('image') else 'texts'}")


def _choice(group: str, name: str) -> dict[str, Any]:
    for folder in filter(None, (own_config_dir(), config_dir())):
        if (path := folder / group / f"{name}.yaml").is_file():
            return _read(path, None)
    return {}


def _read(path: Path, within: Path | None) -> dict[str, Any]:
    """A mapping in a file; empty if there is none that can be read."""
    try:
        read = load_json if path.suffix == ".json" else load_yaml
        found: dict[str, Any] = read(path, within=within)
    except (OSError, ValueError):
        return {}
    return found
