"""Contract of all views."""

from __future__ import annotations

import torch

from ssl_lab.pretext.base import Views
from ssl_lab.types import Batch, ImageGrid, Picture, Spec


def check_views(views: Views, spec: Spec) -> None:
    """Check what holds for all views of the lab, on samples of the spec's ``example``.

    Each size has as many rows as samples times views, two of the first. Views hold what encoders read and nothing else.
    They are a function of the generator that is given, differ from each other, and leave the batch and the global random
    streams as they were. They have no state.

    Args:
        views: The views.
        spec: Facts of their data.

    Raises:
        AssertionError: Saying what does not hold.
    """
    name = type(views).__name__
    assert isinstance(spec, views.takes), (
        f"{name} takes {views.takes.__name__}, but the spec is a {type(spec).__name__}."
    )
    assert not views.state_dict() and not list(views.parameters()), (
        f"{name} has parameters or buffers: views have none."
    )
    samples = spec.example(6)
    before = {column: values.clone() for column, values in samples.items()}
    batch: Batch = {**samples, "label": torch.arange(6), "index": torch.arange(6)}
    first, same, other = (_drawn(views, batch, seed) for seed in (0, 0, 1))
    assert len(first[0][spec.columns[0]]) == 12, (
        f"{name} draws {len(first[0][spec.columns[0]])} views of 6 samples, not 12."
    )
    for drawn in first:
        extra, rows = set(drawn) - set(spec.columns), {len(values) for values in drawn.values()}
        assert not extra, f"{name} has columns that no encoder reads: {', '.join(sorted(extra))}."
        assert len(rows) == 1 and not rows.pop() % 6, f"{name} has views of which some samples have more than others."
        assert all(torch.isfinite(values).all() for values in drawn.values()), f"{name} has values that are not finite."
    assert _equal(first, same), f"{name} draws other views from the same generator: hand it to all that is random."
    assert not _equal(first, other), f"{name} draws the same views from another generator."
    column = first[0][spec.columns[0]]
    assert not torch.equal(column[:6], column[6:]), f"The two views of {name} are the same."
    assert all(torch.equal(samples[each], before[each]) for each in before), f"{name} changes the batch it is given."
    for title, picture in views.show(batch).items():
        assert isinstance(picture, Picture), f"The picture {title} of {name} is a {type(picture).__name__}."
        if isinstance(picture, ImageGrid):
            found = tuple(picture.images.shape)
            assert len(found) == 5, f"The picture {title} of {name} should be (R, N, C, H, W), found {found}."
            assert len(picture.row_names) in (0, found[0]), f"The picture {title} of {name} has other names than rows."
            assert 0 <= picture.images.min() and picture.images.max() <= 1, (
                f"The picture {title} of {name} leaves [0, 1]."
            )


def _drawn(views: Views, batch: Batch, seed: int) -> tuple[Batch, ...]:
    """Views of each size from a generator of this seed."""
    state = torch.get_rng_state()
    drawn = views(batch, torch.Generator().manual_seed(seed))
    untouched = torch.equal(state, torch.get_rng_state())
    assert untouched, f"{type(views).__name__} draws from the global stream although it is given a generator."
    return drawn if views.several_sizes else (drawn,)


def _equal(first: tuple[Batch, ...], second: tuple[Batch, ...]) -> bool:
    return all(torch.equal(a[column], b[column]) for a, b in zip(first, second, strict=True) for column in a)
