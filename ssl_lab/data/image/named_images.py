"""The small image data sets that papers report on, downloaded or from a local copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.files.inventory import folder_facts
from ssl_lab.data.files.text_files import unpack
from ssl_lab.data.image.base import ImageModule, ImageSource
from ssl_lab.data.image.decode import Encoded
from ssl_lab.data.store import cache_folder

if TYPE_CHECKING:
    import datasets

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, H, W) or (N, H, W, 3) and labels (N,)."""

_TORCHVISION_FOLDERS = {
    "cifar10": CIFAR10.base_folder,
    "cifar100": CIFAR100.base_folder,
    "stl10": STL10.base_folder,
    "svhn": ".",
    "mnist": MNIST.__name__,
    "fashion_mnist": FashionMNIST.__name__,
}
_TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
    "svhn": "SVHN",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
}
_OF_DIGITS = ("mnist", "svhn")
_IDX_FILES = {"train": "train", "test": "t10k"}


@dataclass(kw_only=True, eq=False, repr=False)
class NamedImages(ImageModule):
    """CIFAR-10, CIFAR-100, STL-10, SVHN, MNIST or Fashion-MNIST.

    STL-10's 100,000 unlabelled images are its ``pretrain`` split.

    Args:
        name: ``cifar10``, ``cifar100``, ``stl10``, ``svhn``, ``mnist`` or ``fashion_mnist``.
        root: A local copy, which may be read-only: a folder in torchvision's layout or the data set's own folder in it,
            or a folder of ``{train,test}.parquet`` as on the Hugging Face hub. None to download into the cache folder.

    Raises:
        ValueError: If the name is unknown.
    """

    name: str = field(kw_only=False)
    root: str | None = None
    test_fraction: float = field(default=0, init=False)  # each has a test split

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.name not in _READERS:
            raise ValueError(f"Cannot load the data set {self.name!r}. Set data.name to one of {sorted(_READERS)}.")
        self._root = None if self.root is None else Path(self.root).expanduser()

    @property
    def mirrored(self) -> bool | None:
        """False for digits."""
        return False if self.name in _OF_DIGITS else None

    @property
    def title(self) -> str:
        """The data set's usual name."""
        return _TITLES[self.name]

    @cached_property
    def _parquet(self) -> dict[str, datasets.Dataset] | None:
        """The splits, if the local copy is one of parquet files."""
        if self._root is None:
            return None
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"Cannot read {self.name} from {self._root.absolute()}: there is no such folder. "
                "Correct data.root, or set it to null to download."
            )
        places = (
            self._root,
            *(self._root / sub for sub in (self.name, "plain_text", "data")),
        )  # as in clones of the hub
        folder = next((place for place in places if any(place.glob("*.parquet"))), None)
        if folder is None:
            return None
        from ssl_lab.data.hub import load_splits

        return load_splits(str(folder))

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        if self._root is None:
            return self.name, "torchvision"  # which checks what it downloads
        if self._parquet is not None:
            from ssl_lab.data.hub import identity

            return self.name, identity(self._parquet)
        own = self._root / _TORCHVISION_FOLDERS[self.name]
        return self.name, [str(self._root.absolute()), folder_facts(own if own.is_dir() else self._root)]

    def _source(self) -> ImageSource:
        if self._parquet is not None:
            from ssl_lab.data.image.hub_images import hub_image_source

            return hub_image_source(self._parquet)
        download = self._root is None
        root = cache_folder() / "torchvision" if self._root is None else self._root
        try:
            arrays, class_names = _READERS[self.name](root, download)
        except (OSError, RuntimeError) as error:
            asked = "download" if download else f"local copy at {root.absolute()}"
            raise FileNotFoundError(
                f"Cannot load {self.name} as a {asked}: torchvision's files were not found: {error}. Point "
                "data.root at a folder in torchvision's layout or at one of {train,test}.parquet, or allow the "
                "download with data.root=null and a network."
            ) from error

        def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
            for row in rows:
                yield f"{split}[{row}]", arrays[split][0][row]

        return ImageSource(
            labels={split: labels for split, (_, labels) in arrays.items()}, class_names=class_names, read=read
        )


def _read_cifar(dataset: type[CIFAR10], root: Path, download: bool) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    root = root.parent if root.name == dataset.base_folder else root
    parts = {"train": dataset(root, train=True, download=download), "test": dataset(root, train=False)}
    arrays = {split: (part.data, np.array(part.targets, dtype=np.int64)) for split, part in parts.items()}
    return arrays, tuple(parts["train"].classes)


def _read_stl10(root: Path, download: bool) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    root = root.parent if root.name == STL10.base_folder else root
    names = {"train": "train", "test": "test", PRETRAIN: "unlabeled"}
    arrays = {}
    for split, name in names.items():
        part = STL10(root, split=name, download=download)
        arrays[split] = (part.data.transpose(0, 2, 3, 1), part.labels.astype(np.int64))
    return arrays, tuple(part.classes)


def _read_svhn(root: Path, download: bool) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    parts = {split: SVHN(root, split=split, download=download) for split in ("train", "test")}
    arrays = {split: (part.data.transpose(0, 2, 3, 1), part.labels.astype(np.int64)) for split, part in parts.items()}
    return arrays, tuple("0123456789")


def _read_mnist(dataset: type[MNIST], root: Path, download: bool) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """Read the idx files ourselves, gzipped or not: torchvision would unpack them into the root, maybe read-only."""
    if download:
        dataset(root, download=True)
    places = (root / dataset.__name__ / "raw", root / "raw", root)
    folder = next((place for place in places if any(place.glob("train-images*idx3-ubyte*"))), None)
    if folder is None:
        raise FileNotFoundError(f"no train-images-idx3-ubyte or .gz in {', '.join(map(str, places))}")
    arrays = {}
    for split, stem in _IDX_FILES.items():
        images = _read_idx(folder / f"{stem}-images-idx3-ubyte")
        arrays[split] = (images, _read_idx(folder / f"{stem}-labels-idx1-ubyte").astype(np.int64))
    return arrays, tuple(dataset.classes)


def _read_idx(file: Path) -> NDArray[np.uint8]:
    """An array of bytes in LeCun's idx format: 0, 0, type, rank, then the sizes as big-endian int32."""
    packed = file.with_name(f"{file.name}.gz")
    content = unpack(packed) if packed.exists() else file.read_bytes()
    try:
        rank = content[3]
        shape = np.frombuffer(content, ">i4", count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (IndexError, ValueError) as error:
        read = packed if packed.exists() else file
        raise ValueError(f"Cannot read {read}: it is not a complete idx file ({error}). Copy it again.") from error


_Reader = Callable[[Path, bool], tuple[dict[str, Arrays], tuple[str, ...]]]

_READERS: Mapping[str, _Reader] = {
    "cifar10": lambda root, download: _read_cifar(CIFAR10, root, download),
    "cifar100": lambda root, download: _read_cifar(CIFAR100, root, download),
    "stl10": _read_stl10,
    "svhn": _read_svhn,
    "mnist": lambda root, download: _read_mnist(MNIST, root, download),
    "fashion_mnist": lambda root, download: _read_mnist(FashionMNIST, root, download),
}
