"""Base class of data modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.columns import Column, Columns, Decoded, LazyColumn, Ragged, as_tensor
from ssl_lab.data.fingerprint import content_digest
from ssl_lab.data.loader import BatchLoader
from ssl_lab.data.store import fingerprint
from ssl_lab.types import Batch, NotOfferedError, Spec

PRETRAIN = "pretrain"
GIVEN = "given"
"""The split of samples that a user gives, which belong to no data set."""

Sample: TypeAlias = Mapping[str, Any]
"""A sample as people have it, by field, such as ``{"text": "Hello"}`` or ``{"image": Path("a.jpg")}``."""


class Artifact(Protocol):
    """Object that saves itself into a folder, as tokenizers do."""

    def save_pretrained(self, folder: str, /) -> Any:
        """Write it."""


class NoSuchSplitError(ValueError):
    """The data has no split of this name."""


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(L.LightningDataModule, ABC):
    """Raw samples of one data set, shared by every objective of its modality.

    Splits are named ``pretrain`` (what the objective sees; may be unlabelled), ``train`` (what probes are fitted on),
    ``val`` and ``test``. The validation split is cut from the training samples with ``split_seed`` where the data set
    has none; the test split is never used for it.

    Data modules are dataclasses whose fields are their settings, given by keyword. A subclass also takes those of its bases,
    which document them, and checks its own in ``__post_init__``.

    Attributes:
        train_split: What is trained on: ``pretrain``, unless labels are learned from.
        origin_column: What tables call the names of samples: ``path`` of those that are files, or ``id``.

    Args:
        batch_size: Samples per device and training step.
        eval_batch_size: Samples per batch in evaluation.
        seed: Seed of the order of training samples.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.
    """

    batch_size: int = 256
    eval_batch_size: int = 512
    seed: int = 0
    device_cache_gib: float = 4.0

    train_split = PRETRAIN
    origin_column: ClassVar[str] = "id"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If a batch would be empty.
        """
        super().__init__()
        if self.batch_size < 1 or self.eval_batch_size < 1:
            raise ValueError(
                f"Batch sizes must be at least 1, found {self.batch_size} and {self.eval_batch_size}. Set "
                "data.batch_size and data.eval_batch_size."
            )
        self._given: Columns = {}

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Facts of the data; reading it loads (and where needed downloads and decodes) the data."""

    @abstractmethod
    def columns(self, split: str) -> Columns:
        """The raw columns of a split.

        Raises:
            NoSuchSplitError: If there is none, naming those that exist; no other fault of the data is one.
        """

    def as_batch(self, rows: dict[str, Tensor]) -> Batch:
        """Rows of the columns, with ``index``, as methods see them."""
        return rows

    def artifacts(self) -> Mapping[str, Artifact]:
        """Return the objects that interpret the columns, such as a tokenizer, by the name of their folder in a run."""
        return {}

    def check_artifacts(self, run_dir: Path) -> None:
        """Refuse to resume a run whose artifacts are other ones than this data's.

        Raises:
            ValueError: Naming the artifact.
        """

    @classmethod
    def settings_in_run(cls, run_dir: Path, spec: Spec, own: Mapping[str, Any] | None) -> dict[str, Any]:
        """Settings with which this class reads data as the encoder of a run needs it, such as its tokenizer.

        Args:
            run_dir: The run directory, with its artifacts.
            spec: What the encoder was built from.
            own: Settings of the run's own data, if this is other data; None if it is the run's own.
        """
        return {}

    def origin(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """The part of the source that a split was taken or cut from, and the place of each of its samples there.

        By default a split is its own source.
        """
        return split, np.arange(len(next(iter(self.columns(split).values()))))

    def name_of(self, source: str, row: int) -> str:
        """Return the name of a sample in tables, such as the path of its file; by default ``train/17``."""
        return f"{source}/{row}"

    def readable(self, split: str, row: int) -> str:
        """A sample of a split as text, where it can be read; empty by default."""
        return ""

    @property
    def fields(self) -> Mapping[str, str]:
        """Return the parts of a sample given by a user, and the table column of each part; none by default."""
        return {}

    @property
    def given_endings(self) -> tuple[str, ...]:
        """Endings of the files that :meth:`samples_in` reads, in lower case."""
        return ()

    def samples_in(self, file: Path, fields: Mapping[str, str]) -> list[Sample]:
        """The samples that a user's file holds, in its order; nothing of the data set itself is read.

        Args:
            file: A file with one of ``given_endings``.
            fields: The column of each field in a table.

        Raises:
            ValueError: If a table lacks a column, or cannot be read.
        """
        raise self._gives_nothing()

    def give(self, samples: Sequence[Sample], spec: Spec) -> list[int]:
        """Make samples of a user's the split :data:`GIVEN`, read exactly as those of the data set are.

        Data of one's own that offer it fill ``self._given`` with the columns of the samples.

        Args:
            samples: The samples, at least one.
            spec: Facts of the data that the encoder of the run is used on.

        Returns:
            Which of the samples could be read; only these are in the split, in their order.

        Raises:
            NotOfferedError: If data of this class say nothing of samples outside of the data set.
        """
        raise self._gives_nothing()

    def _gives_nothing(self) -> NotOfferedError:
        return NotOfferedError(
            f"Cannot read samples for {type(self).__name__}: it says nothing of files or texts outside of the data set. Give "
            "the class the methods fields, given_endings, samples_in and give, as those of images and texts have."
        )

    @property
    def title(self) -> str:
        """Return the name of the data in tables and pages."""
        return type(self).__name__

    def metrics(self) -> Mapping[str, float]:
        """Figures of the training samples, ``data/<name>``, that are shown when training starts and logged with it."""
        return {}

    @property
    def labelled(self) -> bool:
        """Return whether the ``train`` split carries labels, which probes need."""
        return "label" in self.columns("train")

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Number of samples and digest of the content of each split, read once; place and age of files do not count."""
        found, known = {}, {}
        for split in dict.fromkeys((self.train_split, "train", "val", "test")):
            try:
                columns = self.columns(split)
            except NoSuchSplitError:
                continue
            key = tuple(map(id, columns.values()))
            if key not in known:
                digests = [[name, self.column_digest(split, name)] for name in sorted(columns)]
                known[key] = columns, fingerprint(digests)  # kept, as an id is that of a living object
            found[split] = f"{len(next(iter(columns.values())))} {known[key][1]}"
        return found

    def column_digest(self, split: str, name: str) -> str:
        """Digest of a column's content."""
        return content_digest(self.columns(split)[name])

    def train_dataloader(self) -> BatchLoader:
        """Shuffled raw batches of the split that is trained on, on the training device where they fit."""
        columns = self.columns(self.train_split)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        if sum(column.nbytes for column in columns.values()) <= self.device_cache_gib * 2**30:
            columns = {name: _resident(column, device) for name, column in columns.items()}
        return BatchLoader(
            columns, self.as_batch, batch_size=self.batch_size, seed=self.seed, shuffle=True, device=device
        )

    def eval_dataloader(self, split: str, *, max_samples: int | None = None) -> BatchLoader:
        """Raw batches of a split: ordered, never augmented, and complete unless a fixed random part of it is asked for.

        Raises:
            ValueError: If the split is empty.
        """
        columns = self._given if split == GIVEN else self.columns(split)
        num_samples = len(next(iter(columns.values())))
        if num_samples == 0:
            raise ValueError(
                f"Cannot read the {split} split of {self.title}: it has no samples. Choose another split, or other data."
            )
        rows = None
        if max_samples is not None and max_samples < num_samples:
            order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))
            rows = order[:max_samples].sort().values
        return BatchLoader(columns, self.as_batch, batch_size=self.eval_batch_size, rows=rows)


def _resident(column: Column, device: torch.device) -> Column:
    """The whole column on the device, but for files; one that is put together stays where it is if that is the CPU."""
    if isinstance(column, Decoded) or (isinstance(column, LazyColumn) and device.type == "cpu"):
        return column
    if isinstance(column, Ragged):
        return column.to(device)
    return as_tensor(column.whole() if isinstance(column, LazyColumn) else column).to(device)


def has_split(datamodule: DataModule, split: str) -> bool:
    """Return whether the data has samples in a split: ``val`` is for use during training, ``test`` for the end."""
    try:
        columns = datamodule.columns(split)
    except NoSuchSplitError:
        return False
    return len(next(iter(columns.values()))) > 0
