"""Contract of every data module."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import torch

from ssl_lab.data.base import PRETRAIN, DataModule, has_split
from ssl_lab.data.columns import SIZE
from ssl_lab.types import Batch, Classes, restored


def check_data(build: Callable[[], DataModule]) -> None:
    """Check what holds for every data module of the lab, on all of its samples.

    Its spec says what the columns are and survives the run directory (:func:`check_spec`), splits are read in their order
    and share no sample with those that judge (:func:`check_splits`), and the order of training is a function of the seed
    (:func:`check_order`).

    Args:
        build: Makes small data of this kind anew, such as ``lambda: Stripes(num_train=100, batch_size=16)``.

    Raises:
        AssertionError: Saying what does not hold.
    """
    for check in (check_spec, check_splits, check_order):
        check(build)


def check_spec(build: Callable[[], DataModule]) -> None:
    """The spec is the same after a run directory has kept it; batches have its columns, shapes and targets.

    Raises:
        AssertionError: Saying what does not hold.
    """
    data = build()
    name, spec = type(data).__name__, data.spec
    kept = restored(json.loads(json.dumps(spec.to_json())))
    assert kept == spec, f"The spec of {name} changes where a run keeps it: from {spec!r} to {kept!r}."
    batch = next(iter(data.eval_dataloader("train")))
    missing = [column for column in (*spec.example(1), *spec.targets) if column not in batch]
    assert not missing, f"Batches of {name} lack {', '.join(missing)}, of which its spec tells."
    values = batch[spec.columns[0]]
    if spec.columns[0] + SIZE not in batch:
        assert tuple(values.shape[1:]) == tuple(spec.shape), (
            f"The spec of {name} has samples of shape {tuple(spec.shape)}, but the column {spec.columns[0]} has "
            f"{tuple(values.shape[1:])}."
        )
    for column, target in spec.targets.items():
        if isinstance(target, Classes):
            numbers = batch[column]
            kind = torch.uint8 if numbers.dtype == torch.uint8 else torch.int64
            assert numbers.dtype == kind, f"The classes {column} of {name} should be int64, found {numbers.dtype}."
            counted = numbers[numbers != 255] if kind == torch.uint8 else numbers
            highest = int(counted.max()) if counted.numel() else -1
            assert highest < target.number, f"{name} has the class {highest}, but {column} has {target.number} classes."


def check_splits(build: Callable[[], DataModule]) -> None:
    """Each split is read whole and in its order, and no sample of ``val`` or ``test`` is in another split.

    Raises:
        AssertionError: Saying what does not hold.
    """
    data = build()
    name = type(data).__name__
    found: dict[str, set[bytes]] = {}
    for split in (PRETRAIN, "train", "val", "test"):
        if not has_split(data, split):
            continue
        num_rows = {column: len(values) for column, values in data.columns(split).items()}
        assert len(set(num_rows.values())) == 1, f"Columns of the {split} split of {name} differ in length: {num_rows}."
        index, found[split] = [], set()
        for batch in data.eval_dataloader(split):
            lengths = {column: len(values) for column, values in batch.items()}
            assert len(set(lengths.values())) == 1, f"Columns of a batch of {name} differ in length: {lengths}."
            index += batch["index"].tolist()
            found[split] |= _digests(batch, data)
        assert index == list(range(next(iter(num_rows.values())))), (
            f"The {split} split of {name} is not read whole and in its order: see as_batch and columns."
        )
    assert "train" in found, f"{name} has no train split."
    for judged in ("val", "test"):
        for split in found:
            shared = found.get(judged, set()) & found[split] if split != judged else set()
            assert not shared, (
                f"{name} has {len(shared)} samples both in {split} and in {judged}, which is to judge it."
            )


def check_order(build: Callable[[], DataModule]) -> None:
    """The same seed gives the same batches of the same samples, another one another order.

    Raises:
        AssertionError: Saying what does not hold.
    """
    first, same, other = build(), build(), build()
    other.seed = first.seed + 1
    name = type(first).__name__
    assert first.fingerprint == same.fingerprint, f"{name} holds other samples each time it is made."
    a, b, c = (next(iter(data.train_dataloader())) for data in (first, same, other))
    assert all(torch.equal(a[column], b[column]) for column in a), (
        f"Batches of {name} differ for one and the same seed."
    )
    assert not torch.equal(a["index"], c["index"]), f"{name} has the same order whatever its seed."


def _digests(batch: Batch, data: DataModule) -> set[bytes]:
    """Of what encoders read of each row."""
    columns = [batch[column].cpu().numpy() for column in data.spec.columns if column in batch]
    return {hashlib.sha256(b"".join(row.tobytes() for row in rows)).digest() for rows in zip(*columns, strict=True)}
