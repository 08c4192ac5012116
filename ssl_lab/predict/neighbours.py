"""The samples whose features are most similar to those of a query."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.data.image.decode import decode
from ssl_lab.evaluation.protocol import unit_rows
from ssl_lab.files import replace_file
from ssl_lab.limited import storable
from ssl_lab.predict.features import Features
from ssl_lab.predict.inputs import Given
from ssl_lab.predict.outputs import NEIGHBOURS_PAGE, NEIGHBOURS_TABLE
from ssl_lab.predict.tables import write_rows
from ssl_lab.report.page import environment

_QUERIES_AT_ONCE = 256
NUM_OPEN = 20
"""Queries shown on the page at once; those beyond are folded, and pictures are smaller."""
MAX_ON_PAGE = 200
"""Queries on the page, so that a browser can open it; the table has all of them."""
_SIDE, _SMALL_SIDE = 192, 128  # pixels of the longest side of a picture on the page


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample as tables and the page show it.

    Attributes:
        name: Its path or id.
        text: What can be read of it; empty for pictures.
        kind: Its class, where it is known.
        picture: Gives its pixels uint8 (H, W) or (H, W, 3); None where it has none.
        file: The path of its file; None where it has none of its own, as arrays and rows of tables have none.
    """

    name: str
    text: str = ""
    kind: str = ""
    picture: Callable[[], NDArray[np.uint8] | None] | None = None
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One sample that is similar to a query.

    Attributes:
        index: Its place among the samples.
        similarity: Cosine of the angle between both features, in [-1, 1].
    """

    index: int
    similarity: float


def nearest(
    queries: NDArray[np.float32], among: NDArray[np.float32], k: int, *, same: Sequence[int | None] = ()
) -> list[list[Neighbour]]:
    """The k samples of largest cosine similarity to each query, the most similar first.

    Args:
        queries: Features (Q, D).
        among: Features (N, D).
        k: How many; all there are if these are fewer.
        same: The place of each query among the samples, if it is one of them: it is not its own neighbour.
    """
    units = unit_rows(torch.from_numpy(among))
    found: list[list[Neighbour]] = []
    places = list(same) or [None] * len(queries)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        cosines: Tensor = unit_rows(torch.from_numpy(queries[start : start + _QUERIES_AT_ONCE])) @ units.T
        best = cosines.topk(min(k + 1, len(units)))
        for row, (values, indices) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            pairs = [(i, v) for i, v in zip(indices, values, strict=True) if i != places[start + row]]
            found.append([Neighbour(index=i, similarity=max(-1.0, min(1.0, v))) for i, v in pairs[:k]])
    return found


def shown_inputs(given: Sequence[Given]) -> list[Shown]:
    """How samples of a user's are shown."""
    return [
        Shown(
            name=each.name,
            text=" ".join(map(str, each.shown.values())),
            picture=partial(_picture_of, each.sample["image"]) if "image" in each.sample else None,
            file=None if "row" in each.origin else each.origin.get("path"),
        )
        for each in given
    ]


def shown_data(found: Features, datamodule: DataModule) -> list[Shown]:
    """How samples of a data set are shown."""
    names = found.columns[datamodule.origin_column]
    kinds = found.columns.get("class", [None] * len(found))
    has_pictures = "image" in datamodule.columns(found.places[0][0])
    return [
        Shown(
            name=str(name),
            text="" if has_pictures else datamodule.readable(split, row),
            kind=kind or "",
            picture=partial(_pixels_of, datamodule, split, row) if has_pictures else None,
            file=str(name) if datamodule.origin_column == "path" else None,
        )
        for name, kind, (split, row) in zip(names, kinds, found.places, strict=True)
    ]


def _picture_of(image: Any) -> NDArray[np.uint8] | None:
    pixels = decode(image, channels=None, image_size=None)
    return None if pixels is None else _upright(pixels)


def _pixels_of(datamodule: DataModule, split: str, row: int) -> NDArray[np.uint8]:
    column: Any = datamodule.columns(split)["image"]
    return _upright(np.asarray(column[np.array([row])])[0])


def _upright(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def neighbour_rows(
    queries: Sequence[Shown], among: Sequence[Shown], found: Sequence[Sequence[Neighbour]]
) -> list[dict[str, Any]]:
    """A row for each neighbour of each query: ``query``, ``rank`` from 1, ``similarity`` and the sample."""
    rows = []
    for query, neighbours in zip(queries, found, strict=True):
        for rank, each in enumerate(neighbours, start=1):
            sample = among[each.index]
            facts = {"text": sample.text, "class": sample.kind}
            row = {"query": query.name or query.text, "rank": rank, "similarity": each.similarity, "name": sample.name}
            rows.append({**row, **facts})
    empty = [name for name in ("text", "class") if not any(row[name] for row in rows)]
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def write_neighbours(
    folder: Path,
    queries: Sequence[Shown],
    among: Sequence[Shown],
    found: Sequence[Sequence[Neighbour]],
    *,
    title: str,
    note: str,
) -> list[Path]:
    """Write ``neighbours.csv``, and where there are pictures one page ``index.html`` that loads nothing from elsewhere.

    The page holds each picture once. It folds the queries from the 21st on and leaves out those from the 201st on, and
    says so.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(neighbour_rows(queries, among, found), folder / NEIGHBOURS_TABLE, predicted=["class"])
    if not any(query.picture for query in queries):
        return [folder / NEIGHBOURS_TABLE]
    pictures = _Pictures(_SIDE if len(queries) <= NUM_OPEN else _SMALL_SIDE)
    groups = [
        (pictures.for_page(query), [(pictures.for_page(among[each.index]), each.similarity) for each in neighbours])
        for query, neighbours in zip(queries[:MAX_ON_PAGE], found, strict=False)
    ]
    if len(queries) > MAX_ON_PAGE:
        note += (
            f" The page has the first {MAX_ON_PAGE} of {len(queries):,} queries; {NEIGHBOURS_TABLE} has all of them."
        )
    if len(queries) > NUM_OPEN:
        note += f" The first {NUM_OPEN} are shown; the others are folded at the end of the page."
    template = environment().get_template("neighbours.html")
    page = template.render(
        title=title, note=note, open=groups[:NUM_OPEN], folded=groups[NUM_OPEN:], pictures=pictures.styles
    )
    replace_file(folder / NEIGHBOURS_PAGE, page.encode(), through_link=True)
    return [folder / NEIGHBOURS_TABLE, folder / NEIGHBOURS_PAGE]


class _Pictures:
    """The pictures of a page, each held once in its style sheet however often it is shown.

    Args:
        side: Pixels of the longest side of a picture.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.styles: list[
            tuple[str, bool]
        ] = []  # its address that holds the data; whether it is enlarged and stays sharp
        self._places: dict[str, int] = {}  # by address
        self._known: dict[int, int | None] = {}  # by sample, so that each is opened once

    def for_page(self, sample: Shown) -> dict[str, Any]:
        """Name, class and number of the picture of a sample; None without one."""
        if id(sample) not in self._known:
            pixels = sample.picture() if sample.picture is not None else None
            self._known[id(sample)] = None if pixels is None else self._place(*_thumbnail(pixels, self.side))
        return {"name": storable(sample.name), "kind": storable(sample.kind), "picture": self._known[id(sample)]}

    def _place(self, address: str, sharp: bool) -> int:
        if address not in self._places:
            self._places[address] = len(self.styles)
            self.styles.append((address, sharp))
        return self._places[address]


def _thumbnail(pixels: NDArray[np.uint8], side: int) -> tuple[str, bool]:
    """The address of a picture of at most ``side`` pixels a side, and whether it is small and to be enlarged sharply."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out, kind = io.BytesIO(), "JPEG" if longest > side else "PNG"
    picture.save(out, kind, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}", longest <= side // 2
