"""Nearest samples against a slow loop; a file is no neighbour of itself."""

import numpy as np
import pytest

from ssl_lab.predict.neighbours import Shown, nearest, neighbour_rows


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
