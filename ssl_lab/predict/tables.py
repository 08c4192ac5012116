"""Rows of predictions and features as files, by the ending of their name, and as a short table on the terminal."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ssl_lab.files import write_atomically
from ssl_lab.limited import no_formula, printable, storable
from ssl_lab.predict.outputs import MARK
from ssl_lab.types import ClassMap

Row: TypeAlias = Mapping[str, Any]

_SHOWN_ROWS = 20
_WIDTH = 120  # of a table that goes into a file
_SHOWN_CHARS = 60
_SHOWN_SHARES = 3


def write_masks(rows: Sequence[Row], names: Sequence[str], folder: Path) -> list[str]:
    """Write the mask of each row as an indexed PNG file, whose values are the classes; the names of the files.

    Args:
        rows: With a :class:`~ssl_lab.types.ClassMap` as ``mask`` each.
        names: What each sample is called; its file is called after the last part of it.
        folder: A folder that exists.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(*MARK)
    written: dict[str, None] = {}
    for row, name in zip(rows, names, strict=True):
        stem = Path(name).stem or "mask"
        file = next(each for k in range(len(rows) + 1) if (each := f"{stem}{f'_{k}' if k else ''}.png") not in written)
        written[file] = None
        mask: ClassMap = row["mask"]
        picture = Image.fromarray(mask.pixels, "L").convert("P")
        picture.putdata(mask.pixels.ravel())
        picture.putpalette(mask.colours.ravel().tobytes())
        picture.save(folder / file, "PNG", pnginfo=mark)
    return list(written)


def write_rows(rows: Sequence[Row], out: Path, *, predicted: Sequence[str] = ()) -> None:
    r"""Write rows as csv, jsonl or parquet, at once; in csv and parquet, numbers by name are columns of their own.

    Bytes of file names that are not UTF-8 are written out, as in ``\xff``.

    Args:
        rows: At least one row; all have the same columns.
        out: The file.
        predicted: Columns whose texts come from the run; in csv they are no formulas.
    """
    rows = [{storable(name): storable_cell(value) for name, value in row.items()} for row in rows]
    write: dict[str, Callable[[Path], None]] = {
        ".csv": lambda path: _write_csv(rows, path, predicted),
        ".jsonl": lambda path: _write_jsonl(rows, path),
        ".parquet": lambda path: _write_parquet(rows, path),
    }
    write_atomically(out, write[out.suffix], through_link=True)


def storable_cell(value: Any) -> Any:
    """A value of a table, of whose texts a UTF-8 file can hold each."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [storable_cell(each) for each in value]
    if isinstance(value, Mapping):
        return {storable(name): each for name, each in value.items()}
    return value


def _write_csv(rows: Sequence[Row], path: Path, predicted: Sequence[str]) -> None:
    flat = [flattened(row) for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([no_formula(name) for name in flat[0]])
        for row in flat:
            cells = ((name, " ".join(cell) if isinstance(cell, list) else cell) for name, cell in row.items())
            writer.writerow(
                no_formula(cell) if isinstance(cell, str) and name in predicted else cell for name, cell in cells
            )


def _write_jsonl(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False, default=_plain)}\n" for row in rows)


def _plain(value: Any) -> Any:
    return value.tolist()


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [flattened(row) for row in rows]
    pq.write_table(pa.table({name: [row[name] for row in flat] for name in flat[0]}), path)


def flattened(row: Row) -> dict[str, Any]:
    """A row whose numbers by name stand in columns ``<column>.<name>``."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{below}": number for below, number in value.items()}
        else:
            found[name] = value
    return found


def shown_table(rows: Sequence[Row]) -> Any:
    """The first rows as a table of rich: texts are shortened, of numbers by name the largest are named."""
    import rich.box
    from rich.table import Table
    from rich.text import Text

    names = [name for name in rows[0] if not (name == "probabilities" and "probability" in rows[0])]
    names = [name for name in names if not isinstance(rows[0][name], ClassMap)]
    drawn = Table(box=rich.box.SIMPLE_HEAD)
    for name in names:
        drawn.add_column(Text(name), overflow="fold")
    for row in rows[:_SHOWN_ROWS]:
        drawn.add_row(*(Text(_cell(row[name])) for name in names))
    return drawn


def print_rows(rows: Sequence[Row], *, whole: str) -> None:
    """Show the first rows on the terminal, and where there are more, where all of them are: ``whole``."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _WIDTH).print(shown_table(rows))
    if len(rows) > _SHOWN_ROWS:
        print(f"The first {_SHOWN_ROWS} of {len(rows):,} rows. {whole}")


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        largest = sorted(value.items(), key=lambda item: -item[1])[:_SHOWN_SHARES]
        return printable(", ".join(f"{name} {share:.0%}" for name, share in largest))
    if isinstance(value, float):
        return f"{value:.3f}"
    text = printable(" ".join(value) if isinstance(value, list) else str(value), keep="").replace("\n", " ")
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
