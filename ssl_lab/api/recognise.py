"""Recognise the data that a user gives: one small reader for each kind, tried in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ssl_lab.api.given import Configured, Given, ImageFiles, Images, Texts
from ssl_lab.api.in_memory import Arrays, Lists, images_of, kind_of, texts_or_files
from ssl_lab.api.labels import label_values
from ssl_lab.api.pixels import as_array, as_one_size
from ssl_lab.api.places import Places
from ssl_lab.api.reader import KINDS, Asked, Reader, called, is_a
from ssl_lab.cli.from_python import import_bars
from ssl_lab.cli.paths import config_dir

SPLITS = ("train", "val", "test", "pretrain")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


def recognise(data: Any, *, labels: Any = None, image_size: int | None = None) -> Given:
    """The data that were given.

    Args:
        data: See ``KINDS``; or a dict of them by split, ``train``, ``val``, ``test`` and ``pretrain``.
        labels: A label for each sample; for a dict, a dict.
        image_size: What images that differ in size are resized to: the short side, then the centre square.

    Raises:
        ValueError: If it is nothing that ssl_lab reads; says what was found and what to do.
    """
    import_bars()
    asked = Asked(labels=labels, image_size=image_size)
    for reader in READERS:
        if reader.takes(data):
            return reader.read(data, asked)
    for name, advice in REFUSED.items():
        if is_a(data, name):
            raise ValueError(f"Cannot read data from {called(data)}: {advice}")
    raise ValueError(f"Cannot read data from {called(data)}. Give {KINDS}.")


class DataModules(Reader):
    """A DataModule of ssl_lab, or of a class that is made of one."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return is_a(data, "ssl_lab.data.base.DataModule")

    def read(self, data: Any, asked: Asked) -> Given:
        """As the settings that it was built from."""
        asked.none(type(data).__name__)
        kind = type(data)
        target = f"{kind.__module__}.{kind.__qualname__}"
        given = {each.name: getattr(data, each.name) for each in fields(data) if each.init and each.name != "seed"}
        seed = {"seed": data.seed} if data.seed else {}  # the run's seed orders samples, too
        for name, group in _data_groups().items():
            if group.get("_target_") == target and all(group[key] == given.get(key) for key in _fixed(group, given)):
                own = {f"data.{key}": value for key, value in given.items() if group.get(key, ...) != value}
                return Configured(named={"data": name, **own, **seed}, labelled=None)
        if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
            raise ValueError(
                f"Cannot record {kind.__name__}: a run is built again from its settings, which cannot name a class of a "
                "script "
                "or notebook. Put the class into a file of its own and import it, or train by method.fit(data)."
            )
        return Configured(named={"~data": None, "+data": {"_target_": target, **given}, **seed})


class HubDatasets(Reader):
    """A ``datasets.Dataset`` or ``DatasetDict``."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return is_a(data, "datasets.arrow_dataset.Dataset", "datasets.dataset_dict.DatasetDict")

    def read(self, data: Any, asked: Asked) -> Given:
        """As parquet files in the cache folder."""
        import datasets

        from ssl_lab.api.hub import Table

        splits = dict(data) if isinstance(data, dict) else {"train": data}
        if asked.labels is not None:
            splits = _with_labels(splits, asked.labels)
        features = next(iter(splits.values())).features
        classes = [name for name, each in features.items() if isinstance(each, datasets.ClassLabel)]
        usual = next((name for name in _LABEL_NAMES if name in (classes or features)), None)
        label = "label" if asked.labels is not None else usual or next(iter(classes), None)
        is_images = any(isinstance(each, datasets.Image) for each in features.values())
        return Table(
            splits=splits, label=label, is_images=is_images, image_size=asked.image_size, labelled=label is not None
        )


def _with_labels(splits: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Splits whose column ``label`` holds the labels that were given, whatever the data hold beside them.

    Raises:
        ValueError: If they are for another split or for none in particular, or of another number.
    """
    if not isinstance(given, Mapping) and len(splits) > 1:
        raise ValueError(
            f"Cannot tell which split these labels are of: the data have {', '.join(splits)}. Give a dict: "
            f"labels={{{next(iter(splits))!r}: ...}}."
        )
    labels = given if isinstance(given, Mapping) else {next(iter(splits)): given}
    if strangers := sorted(set(labels) - set(splits)):
        raise ValueError(f"Cannot use labels of {strangers[0]}: the splits are {', '.join(splits)}. Name one of them.")
    found = dict(splits)
    for split, each in labels.items():
        rows = splits[split]
        values = label_values(each, len(rows))
        rows = rows.remove_columns("label") if "label" in rows.column_names else rows
        found[split] = rows.add_column("label", values)
    return found


class TorchDatasets(Reader):
    """A ``torch.utils.data.Dataset`` of images or texts, with labels or not; each item is read once."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return is_a(data, "torch.utils.data.dataset.Dataset")

    def read(self, data: Any, asked: Asked) -> Given:
        """Item by item."""
        if not hasattr(data, "__len__"):
            raise ValueError(
                f"Cannot read {called(data)}: it does not say how many items it has. Give a Dataset with __len__, or a list."
            )
        if len(data) == 0:
            raise ValueError(f"Cannot read {called(data)}: it has no items. Give at least one.")
        samples, labels = zip(*(_sample(data[k], data) for k in range(len(data))), strict=True)
        found: Any = asked.labels
        if found is None and any(label is not None for label in labels):
            found = labels
        if all(isinstance(sample, str) for sample in samples):
            return texts_or_files(list(samples), Asked(labels=found, image_size=asked.image_size))
        if {kind_of(sample) for sample in samples} != {"image"}:
            raise ValueError(
                f"Cannot read {called(data)}: its items begin with {called(samples[0])}. An item is an image or text, or a "
                "tuple or dict that begins with one; views are drawn by ssl_lab."
            )
        names = getattr(data, "classes", None)
        pixels = as_one_size(samples, image_size=asked.image_size)
        return images_of(pixels, found, names=names, title=type(data).__name__)


class Splits(Reader):
    """A dict of data by split."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return isinstance(data, Mapping)

    def read(self, data: Any, asked: Asked) -> Given:
        """Each split by itself; all are of one kind."""
        if not set(data) <= set(SPLITS) or "train" not in data:
            raise ValueError(
                f"Cannot read data from a dict of {', '.join(map(str, data)) or 'nothing'}: its keys are splits. Give "
                "train, and "
                f"where you have them {', '.join(SPLITS[1:])}."
            )
        if asked.labels is not None and not (isinstance(asked.labels, Mapping) and set(asked.labels) <= set(data)):
            raise ValueError(
                f"Cannot use these labels for a dict of splits. Give a dict: labels={{{', '.join(data)}}}."
            )
        labels = asked.labels or {}
        given = {
            split: recognise(each, labels=labels.get(split), image_size=asked.image_size)
            for split, each in data.items()
        }
        kinds = {type(each) for each in given.values()}
        if len(kinds) > 1 or not kinds <= {Images, Texts, ImageFiles}:
            raise ValueError(
                "Cannot join splits of different kinds. Give arrays, lists or Datasets of one kind in all splits."
            )
        return _joined(given)


def _joined(given: Mapping[str, Any]) -> Given:
    first = given["train"]
    labels = {split: each.labels["train"] for split, each in given.items() if each.labels}
    if isinstance(first, Texts):
        return Texts(texts={s: each.texts["train"] for s, each in given.items()}, labels=labels, labelled=bool(labels))
    if isinstance(first, ImageFiles):
        paths = {split: each.paths["train"] for split, each in given.items()}
        return ImageFiles(paths=paths, labels=labels, image_size=first.image_size, labelled=bool(labels))
    sizes = {each.pixels["train"].shape[1:] for each in given.values()}
    if len(sizes) > 1:
        raise ValueError(f"Cannot join splits of images of different shape: {sorted(sizes)}. Give images of one size.")
    names = max((each.class_names for each in given.values()), key=len)
    strangers = {name for each in given.values() for name in each.class_names} - set(names)
    if strangers or any(each.class_names != names[: len(each.class_names)] for each in given.values()):
        raise ValueError(
            "Cannot join splits whose classes differ. Give labels as numbers that mean the same in all splits."
        )
    pixels = {split: each.pixels["train"] for split, each in given.items()}
    return Images(pixels=pixels, labels=labels, class_names=names, title=first.title, labelled=bool(labels))


READERS: tuple[Reader, ...] = (DataModules(), HubDatasets(), TorchDatasets(), Arrays(), Lists(), Places(), Splits())

REFUSED: dict[str, str] = {
    "lightning.pytorch.core.datamodule.LightningDataModule": "ssl_lab draws its own batches. Give its Dataset, such as "
    "datamodule.train_dataloader().dataset after setup().",
    "pytorch_lightning.core.datamodule.LightningDataModule": "ssl_lab draws its own batches. Give its Dataset, such as "
    "datamodule.train_dataloader().dataset after setup().",
    "torch.utils.data.dataloader.DataLoader": "ssl_lab draws its own batches. Give its Dataset: loader.dataset.",
    "torch.nn.modules.module.Module": "it is a network. Give the data first: ssl_lab.pretrain(images, "
    "method='simclr'); train "
    "your own network by SimCLR(network, AdamW(), TwoViews(View())).fit(images), and judge it by "
    "ssl_lab.evaluate(network, images).",
    "builtins.tuple": "a batch has its images and labels apart here. Give the images, and the labels as labels=.",
    "pandas.DataFrame": "give a Hugging Face Dataset: datasets.Dataset.from_pandas(frame).",
    "pandas.core.frame.DataFrame": "give a Hugging Face Dataset: datasets.Dataset.from_pandas(frame).",
    "pandas.core.series.Series": "give a list: series.tolist().",
    "pandas.Series": "give a list: series.tolist().",
}
"""Why what people give is refused, by the name of its class."""


def _sample(item: Any, data: Any) -> tuple[Any, Any]:
    """The first thing of an item, and its label if it has one."""
    if isinstance(item, Mapping):
        keys = [key for key in ("image", "img", "pixel_values", "text") if key in item]
        label = next((item[name] for name in _LABEL_NAMES if name in item), None)
        return (item[keys[0]] if keys else next(iter(item.values()))), label
    if isinstance(item, tuple | list) and len(item) > 0:
        label = item[1] if len(item) > 1 else None
        if label is not None and as_array(label).size != 1:
            raise ValueError(
                f"Cannot read {called(data)}: the second part of its items has shape {np.shape(as_array(label))}, "
                "which is no "
                "label. Give items (image, label) or (image,)."
            )
        return item[0], label
    return item, None


def _data_groups() -> dict[str, dict[str, Any]]:
    import yaml

    held = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (config_dir() / "data").glob("*.yaml")
    }
    return {
        name: {key: None if value == "???" else value for key, value in each.items()} for name, each in held.items()
    }


def _fixed(group: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Settings that identify the choice of a group, such as ``name: cifar10`` of the named images."""
    return [key for key in ("name",) if group.get(key) is not None and key in given]
