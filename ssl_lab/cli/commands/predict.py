"""``ssl-lab predict``: what a fine-tuned run says of a user's own files and texts."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lab.limited import printable
from ssl_lab.outputs import check_output, clear, write_folder
from ssl_lab.predict.outputs import PLACES, check_ending, holds_predictions, is_mask_of_ours, masks_folder

if TYPE_CHECKING:
    from ssl_lab.cli.using import Opened
    from ssl_lab.predict.inputs import Given

TEXTS = ("text", "second_text", "question")


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, before anything slow is imported."""
    check_inputs(cfg, "predict")
    if cfg.batch_size is not None and cfg.batch_size < 1:
        raise ValueError(f"Cannot predict {cfg.batch_size} samples at a time. Set batch_size to 1 or more.")
    if cfg.out is None:
        return
    out = Path(cfg.out)
    check_output(out)  # of what kind it is, before its ending
    check_ending(out)
    check_output(out, ours=holds_predictions)
    refuse_input(out, places(cfg))


def check_inputs(cfg: DictConfig, command: str) -> None:
    """Refuse settings that name no input, or two."""
    texts = [name for name in TEXTS if cfg.get(name) is not None]
    if cfg.input is None and not texts:
        raise ValueError(f"ssl-lab {command} needs input=FILE, input=FOLDER or text='...'.")
    if cfg.input is not None and texts:
        raise ValueError(f"Both input= and {texts[0]}= were given. Give files, or one text.")
    if cfg.columns is not None and cfg.input is None:
        raise ValueError(
            "columns= names the columns of tables, but no table is given. Leave it out, or give input=FILE."
        )
    for place in places(cfg):
        if not place.exists():
            raise FileNotFoundError(
                f"Cannot read input={place}: nothing is there (working directory: {Path.cwd()}). Correct the path."
            )


def places(cfg: DictConfig) -> list[Path]:
    """The files and folders of ``input=``."""
    given = cfg.input if isinstance(cfg.input, ListConfig) else [cfg.input]
    return [Path(str(place)) for place in given if place is not None]


def refuse_input(out: Path, inputs: list[Path]) -> None:
    """Refuse to write over what is read."""
    if any(place.resolve() == out.resolve() for place in inputs):
        raise ValueError(f"Cannot write out={out}: it is the input. Give out= another name.")


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab predict``: a row for each input, in their order."""
    from ssl_lab.cli.progress import counting
    from ssl_lab.cli.using import open_to_use, predicted_rows
    from ssl_lab.predict.running import predicting, task_of
    from ssl_lab.predict.tables import left_out_of_table, shown_table, write_rows

    run_dir = Path(cfg.run)
    out = None if cfg.out is None else Path(cfg.out)
    clear(*([] if out is None else [out]), runs=[run_dir])
    opened = open_to_use(run_dir, batch_size=cfg.batch_size)
    task = task_of(opened.method, cfg.run)
    given = given_to(cfg, opened)
    with counting(len(given), "samples") as advance:
        found = opened.run(given, predicting(task, opened.device), advance)
    tell_unread(found.unreadable, opened)
    rows = predicted_rows(found)
    if out is None:
        from rich.console import Console

        Console().print(shown_table(rows))
        print(left_out_of_table(len(rows)))
        return 0
    told = ""
    if "mask" in rows[0]:
        folder = _write_masks(rows, [each.name for each in found.given], out)
        told = f" Masks: {folder}"
    write_rows(rows, out, predicted=[name for name in rows[0] if name not in (*PLACES, *found.given[0].shown)])
    print(printable(f"{len(rows):,} rows of {type(task).__name__}: {out}.{told}"))
    return 0


def given_to(cfg: DictConfig, opened: Opened) -> list[Given]:
    """The samples that the settings name; files of other kinds are counted and named."""
    from ssl_lab.predict.inputs import from_files, from_texts

    texts = {name: cfg[name] for name in TEXTS if cfg.get(name) is not None}
    if texts:
        return from_texts(texts, opened.datamodule)
    columns = None if cfg.columns is None else OmegaConf.to_container(cfg.columns)
    given, left_out = from_files(places(cfg), opened.datamodule, columns)  # type: ignore[arg-type]
    if left_out:
        more = ", ..." if len(left_out) > 3 else ""
        names = ", ".join(str(file) for file in left_out[:3])
        print(printable(f"{len(left_out):,} files of other kinds are left out: {names}{more}"))
    if not given:
        raise ValueError(f"Cannot read input={cfg.input}: there is nothing in it. Give a file with at least one row.")
    return given


def tell_unread(unreadable: list[Given], opened: Opened) -> None:
    """Count and name the samples that are left out."""
    from ssl_lab.cli.using import named, unread

    if unreadable:
        message = (
            f"Inputs that are left out, as {unread(opened.datamodule)}: {len(unreadable):,} ({named(unreadable)})."
        )
        warnings.warn(printable(message), stacklevel=2)


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
