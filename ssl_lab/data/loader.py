"""Whole batches cut by index from columns that stay in memory, on the device, in a memory map, or in files."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.data.columns import SIZE, Column, Columns, Decoded, Ragged
from ssl_lab.types import Batch

_PATIENCE_SEC = 120.0


class EpochPermutation:
    """The order of the samples as a function of (seed, epoch), the same on every rank and after a resume."""

    def __init__(self, num_samples: int, *, seed: int, shuffle: bool, rows: Tensor | None = None) -> None:
        self.num_samples = num_samples
        self.rows = rows
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Row numbers of this epoch, shape (num_samples,)."""
        if not self.shuffle:
            return torch.arange(self.num_samples) if self.rows is None else self.rows
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        return torch.randperm(self.num_samples, generator=generator)


def check_enough(num_samples: int, batch_size: int, num_ranks: int, *, cut: str = "") -> None:
    """Refuse a training split that gives no whole batch.

    Args:
        num_samples: Samples of the training split.
        batch_size: Samples of a step on each rank.
        num_ranks: Number of ranks.
        cut: What was cut from the training samples before, for the message.

    Raises:
        ValueError: With the numbers, and a batch size that fits: the largest power of two with two steps an epoch, if any.
    """
    if num_samples < batch_size * num_ranks:
        ranks = f" on {num_ranks} ranks ({batch_size * num_ranks:,} samples a step)" if num_ranks > 1 else ""
        fitting = max(1, num_samples // num_ranks // 2)
        raise ValueError(
            f"Cannot train with data.batch_size={batch_size}{ranks}: the training split has {num_samples:,} samples{cut}. "
            f"Set data.batch_size={1 << fitting.bit_length() - 1}."
        )


class BatchLoader:
    """Iterates over batches of columns.

    One step of W ranks with batch size B reads the same W * B samples as one process with batch size W * B, so runs
    agree whatever the number of ranks. The loader's state is its position in the epoch; Lightning stores it in the
    checkpoint and a resumed run starts with the very next batch.

    Args:
        columns: Equally long columns.
        as_batch: Turns rows of the columns into the batch that methods see.
        batch_size: Samples per rank and step.
        seed: Seed of the order of samples.
        shuffle: Training: shuffled, incomplete last batch dropped, sharded over ranks. Otherwise: in order, complete,
            and the same on every rank.
        rows: Numbers of the rows that are read, if not all; not with ``shuffle``.
        device: Where batches are put. Columns that are tensors are expected to be there already.

    Raises:
        ValueError: If columns differ in length, one has the name of another's sizes, or there is no whole training step.
    """

    def __init__(
        self,
        columns: Columns,
        as_batch: Callable[[dict[str, Tensor]], Batch],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        rows: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.columns = columns
        self.as_batch = as_batch
        self.batch_size = batch_size
        self.device = device or torch.device("cpu")
        self.num_samples = len(next(iter(columns.values()))) if rows is None else len(rows)
        self.sampler = EpochPermutation(self.num_samples, seed=seed, shuffle=shuffle, rows=rows)
        self._batches_done = 0
        self._resume_at = {"epoch": 0, "batches_done": 0}
        if len(set(map(len, columns.values()))) > 1:
            numbers = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise ValueError(
                f"Cannot cut batches of columns of different length: {numbers} rows. Give each as many rows."
            )
        for name, column in columns.items():
            if isinstance(column, Ragged | Decoded) and f"{name}{SIZE}" in columns:
                raise ValueError(
                    f"Cannot cut batches of the column {name!r}: they tell the sizes of its rows as '{name}{SIZE}', but "
                    "the data has a column of that name. Rename one of them."
                )
        if shuffle:
            check_enough(self.num_samples, batch_size, distributed.world_size())

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size * (distributed.world_size() if self.sampler.shuffle else 1)

    def __len__(self) -> int:
        """Batches per epoch."""
        if self.sampler.shuffle:
            return self.num_samples // self._global_batch_size
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Batches of one epoch; the first time after ``load_state_dict``, from the stored position of that epoch on."""
        start = self._resume_at["batches_done"] if self._resume_at["epoch"] == self.sampler.epoch else 0
        self._resume_at = {"epoch": 0, "batches_done": 0}
        self._batches_done = start
        resident = [device for column in self.columns.values() if (device := _device_of(column)) is not None]
        all_resident = len(resident) == len(self.columns)
        order = self.sampler.order()
        # Copied as a whole: the copy of a batch's part would wait for the device in every step.
        placed = order.to(resident[0]) if all_resident else order
        batches: Iterator[Batch] = (self._read(order, placed, k) for k in range(start, len(self)))
        if not all_resident:
            files = [name for column in self.columns.values() for name in _files_of(column)]
            batches = _prefetch(batches, source=", ".join(files) or "the training data")
        for done, batch in enumerate(batches, start=start + 1):
            self._batches_done = done
            yield batch

    def _read(self, order: Tensor, placed: Tensor, k: int) -> Batch:
        """Batch k of an order, which is also at its place: on the device if all columns are."""
        start = k * self._global_batch_size
        if self.sampler.shuffle:
            start += distributed.rank() * self.batch_size
        part = slice(start, start + self.batch_size)
        index = order[part].numpy()
        rows: dict[str, Tensor] = {}
        for name, column in self.columns.items():
            if isinstance(column, Tensor):
                rows[name] = column[placed[part].to(column.device)]
            elif isinstance(column, Ragged | Decoded):
                values, sizes = column.read(index)
                rows[name] = self._put(values)
                if sizes is not None:
                    rows[f"{name}{SIZE}"] = self._put(sizes)
            else:
                rows[name] = self._put(torch.from_numpy(np.ascontiguousarray(column[index])))
        return self.as_batch({**rows, "index": placed[part].to(self.device)})

    def _put(self, rows: Tensor) -> Tensor:
        if self.device.type != "cuda" or rows.device.type != "cpu":
            return rows
        return rows.pin_memory().to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches were handed out, and what these numbers depend on."""
        return {"epoch": self.sampler.epoch, "batches_done": self._batches_done, **self._scale()}

    def _scale(self) -> dict[str, int]:
        return {"num_samples": self.num_samples, "samples_per_step": self._global_batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a stored position when its epoch is iterated; other epochs begin at their first batch.

        Raises:
            ValueError: If the data or the batch of all ranks has another size: the position would be another one, and so
                would the schedules.
        """
        now = self._scale()
        before = {name: state.get(name, value) for name, value in now.items()}
        if before != now:
            raise ValueError(
                f"Cannot resume with {now['samples_per_step']} samples a step of {now['num_samples']}: the checkpoint "
                f"was made with {before['samples_per_step']} of {before['num_samples']}. Keep data.batch_size x ranks and "
                "the data, or start a new run."
            )
        self.sampler.set_epoch(state["epoch"])
        self._resume_at = {name: state[name] for name in self._resume_at}


def _device_of(column: Column) -> torch.device | None:
    """Where a column's values are as tensors; None where they have to be read."""
    values = column.values if isinstance(column, Ragged) else column
    return values.device if isinstance(values, Tensor) else None


def _files_of(column: Column) -> list[str]:
    """The file of a memory map, or the first of those that are decoded."""
    if isinstance(column, Decoded):
        return [str(file) for file in column.files[:1]]
    values = column.values if isinstance(column, Ragged) else column
    return [str(values.filename)] if isinstance(values, np.memmap) else []


def _prefetch(batches: Iterator[Batch], *, source: str, depth: int = 2) -> Iterator[Batch]:
    """Read ahead in a thread; an error in the thread is raised where the batch would have been used.

    A read that hangs, such as on a network file system, is reported every few minutes with the files it reads.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (item := _get(ready, source)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _get(ready: queue.Queue[Any], source: str) -> Any:
    waited = 0.0
    while True:
        try:
            return ready.get(timeout=_PATIENCE_SEC)
        except queue.Empty:
            waited += _PATIENCE_SEC
            warnings.warn(
                f"No batch for {waited:.0f} s: reading {source} hangs or is very slow. Training continues once it comes.",
                stacklevel=2,
            )
