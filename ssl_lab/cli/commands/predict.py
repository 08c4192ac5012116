"""``ssl-lab predict``: predict your files and texts with a fine-tuned run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssl_lab.cli.inputs import check_inputs, given_to, has_inputs, places, refuse_input, tell_unread
from ssl_lab.cli.paths import tuned_run
from ssl_lab.limited import printable
from ssl_lab.outputs import check_output, clear, write_folder
from ssl_lab.predict.outputs import PLACES, check_ending, holds_predictions, is_mask_of_ours, masks_folder


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, before anything slow is imported."""
    check_inputs(cfg)
    if not has_inputs(cfg):
        raise ValueError("ssl-lab predict needs input=FILE, input=FOLDER or text='...'.")
    if cfg.batch_size is not None and cfg.batch_size < 1:
        raise ValueError(f"Cannot predict {cfg.batch_size} samples at a time. Set batch_size to 1 or more.")
    if cfg.out is None:
        return
    out = Path(cfg.out)
    check_output(out)  # of what kind it is, before its ending
    check_ending(out)
    check_output(out, ours=holds_predictions)
    refuse_input(out, places(cfg))


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab predict``: a row for each input, in their order."""
    from ssl_lab.cli.progress import counting
    from ssl_lab.cli.using import open_to_use, predicted_rows
    from ssl_lab.predict.running import predicting, task_of
    from ssl_lab.predict.tables import print_rows, write_rows

    run_dir = tuned_run(Path(cfg.run))
    if run_dir != Path(cfg.run):
        print(printable(f"Run: {run_dir}"))
    out = None if cfg.out is None else Path(cfg.out)
    clear(*([] if out is None else [out]), runs=[run_dir])
    opened = open_to_use(run_dir, batch_size=cfg.batch_size)
    task = task_of(opened.method, str(run_dir))
    given = given_to(cfg, opened.datamodule)
    with counting(len(given), "samples") as advance:
        found = opened.run(given, predicting(task, opened.device), advance)
    tell_unread(found.unreadable, opened.datamodule)
    rows = predicted_rows(found)
    if out is None:
        print_rows(rows, whole="Give out=FILE.csv for all of them.")
        return 0
    suffix = ""
    if "mask" in rows[0]:
        folder = _write_masks(rows, [each.name for each in found.given], out)
        suffix = f" Masks: {folder}"
    write_rows(rows, out, predicted=[name for name in rows[0] if name not in (*PLACES, *found.given[0].shown)])
    print(printable(f"{len(rows):,} rows of {type(task).__name__}: {out}.{suffix}"))
    return 0


def _write_masks(rows: list[dict[str, Any]], names: list[str], out: Path) -> Path:
    """Write all masks into one folder, and their places into the rows."""
    from ssl_lab.predict.tables import write_masks

    folder = masks_folder(out)
    files: list[str] = []

    def write(place: Path) -> None:
        files.extend(write_masks(rows, names, place))

    write_folder(folder, write, may_replace=partial(_check_masks, out=out))
    for row, file in zip(rows, files, strict=True):
        row["mask"] = str(Path(folder.name, file))
    return folder


def _check_masks(folder: Path, *, out: Path) -> None:
    """Refuse to replace anything but masks of an earlier command."""
    if folder.exists() and not (folder.is_dir() and all(map(_is_mask, folder.iterdir()))):
        raise ValueError(
            f"Cannot write the masks to {folder}: it holds other files than masks that this command wrote. Move them away, "
            f"or give another out= than {out}."
        )


def _is_mask(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and is_mask_of_ours(path)
