"""Nearest samples against a slow loop; a file is not its own neighbour."""

import numpy as np
import pytest

from ssl_lab.predict.neighbours import (
    MAX_ON_PAGE,
    NUM_OPEN,
    Neighbour,
    Shown,
    nearest,
    neighbour_rows,
    write_neighbours,
)
from ssl_lab.predict.outputs import is_page_of_neighbours


@pytest.mark.parametrize(("k", "scale"), [(1, 1.0), (4, 1e-20), (400, 1e20)])
def test_the_nearest_are_those_of_a_loop(k, scale):
    rng = np.random.default_rng(0)
    among, queries = (rng.normal(size=(n, 5)).astype(np.float32) * np.float32(scale) for n in (300, 260))
    same = [None, 7, *[None] * 258]
    queries[1] = among[7]
    found = nearest(queries, among, k, same=same)
    units, asked = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (among, queries)
    )
    for row, neighbours in enumerate(found):
        cosines = units @ asked[row]
        wanted = [i for i in np.argsort(-cosines) if i != same[row]][:k]
        assert [each.index for each in neighbours] == wanted
        np.testing.assert_allclose([each.similarity for each in neighbours], cosines[wanted], atol=1e-5)


def test_columns_without_content_are_left_out():
    found = [nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), 1)[0]]
    row = neighbour_rows([Shown(name="q")], [Shown(name="a", kind="cat"), Shown(name="b", kind="dog")], found)[0]
    assert row == {"query": "q", "rank": 1, "similarity": 1.0, "name": "a", "class": "cat"}


def shown_pictures(number, side=8):
    return [
        Shown(name=f"{k}.png", picture=lambda k=k: np.full((side, side, 3), k % 256, np.uint8)) for k in range(number)
    ]


def test_the_page_holds_each_picture_once_and_folds_queries_beyond_the_first(tmp_path):
    samples = shown_pictures(NUM_OPEN + 3)
    found = [[Neighbour(index=(k + i) % len(samples), similarity=0.5) for i in (1, 2)] for k in range(len(samples))]
    write_neighbours(tmp_path, samples, samples, found, title="Most similar", note="Cosine.")
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(samples)
    before, folded = page.split("<details")
    assert (before.count("<section"), folded.count("<section")) == (NUM_OPEN, 3)
    assert "The other 3 queries" in folded and f"The first {NUM_OPEN} are shown" in before
    assert "{{" not in page and is_page_of_neighbours(tmp_path / "index.html")


def test_few_queries_are_not_folded_and_very_many_are_left_to_the_table(tmp_path):
    samples = shown_pictures(MAX_ON_PAGE + 5, side=2)
    found = [[Neighbour(index=0, similarity=1.0)] for _ in samples]
    write_neighbours(tmp_path, samples[:NUM_OPEN], samples, found[:NUM_OPEN], title="Most similar", note="Cosine.")
    assert "<details" not in (tmp_path / "index.html").read_text()
    write_neighbours(tmp_path, samples, samples, found, title="Most similar", note="Cosine.")
    page = (tmp_path / "index.html").read_text()
    assert page.count("<section") == MAX_ON_PAGE and "neighbours.csv has all of them" in page
    assert len((tmp_path / "neighbours.csv").read_text().splitlines()) == len(samples) + 1
