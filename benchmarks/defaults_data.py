"""Small data sets that no default was tuned on, as folders of images or tables of texts in the layout that a user has.

Sources lie in one folder: ``FashionMNIST/raw`` or ``FashionMNIST`` (idx files), ``cifar10/{train,test}.parquet`` (images of
the Hugging Face hub), ``DSB2018/{images,instances}``, ``BCCD`` (Pascal VOC), ``20newsgroups/20news-bydate.tar.xz``,
``SST-2/{train,test}.tsv``, ``AG_News/{train_10k,test}.csv.gz``.
"""

import csv
import gzip
import io
import lzma
import tarfile
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

NUM_TRAIN, NUM_TEST = 8000, 2000
SIDE = 32


def fashion_mnist(root):
    """Grey images of clothes, 28 pixels, ten classes."""
    folder = next(root.glob("FashionMNIST/**/train-images-idx3-ubyte*")).parent

    def read(name, skip):
        file = next(folder.glob(f"{name}-ubyte*"))
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        return np.frombuffer(content, np.uint8, offset=skip)

    parts = {}
    for split, name in {"train": "train", "test": "t10k"}.items():
        images = read(f"{name}-images-idx3", 16).reshape(-1, 28, 28)
        parts[split] = images, read(f"{name}-labels-idx1", 8)
    return cut(parts)


def cifar10(root):
    """Colour photos, 32 pixels, ten classes."""
    import pyarrow.parquet as pq

    parts = {}
    for split in ("train", "test"):
        table = pq.read_table(root / f"cifar10/{split}.parquet")
        column = next(name for name in table.column_names if name in ("image", "img"))
        rows = table.slice(0, NUM_TRAIN if split == "train" else NUM_TEST)
        images = [np.array(Image.open(io.BytesIO(each["bytes"])).convert("RGB")) for each in rows[column].to_pylist()]
        parts[split] = np.stack(images), np.array(rows["label"].to_pylist())
    return cut(parts)


def nuclei(root):
    """Grey crops of 32 pixels from microscopes; the class is the number of nuclei whose centre is inside: 0, 1, 2, 3 or more.

    Images whose name begins with e or f are the test split.
    """
    parts = {"train": ([], []), "test": ([], [])}
    for file in sorted(root.glob("DSB2018/images/*.png")):
        image = np.array(Image.open(file).convert("L"))
        instances = np.array(Image.open(root / "DSB2018/instances" / file.name))
        centres = [np.argwhere(instances == number).mean(0) for number in range(1, instances.max() + 1)]
        images, labels = parts["test" if file.name[0] in "ef" else "train"]
        for y in range(0, 256, SIDE):
            for x in range(0, 256, SIDE):
                images.append(image[y : y + SIDE, x : x + SIDE])
                labels.append(min(3, sum(y <= cy < y + SIDE and x <= cx < x + SIDE for cy, cx in centres)))
    return cut({split: (np.stack(images), np.array(labels)) for split, (images, labels) in parts.items()})


def blood_cells(root):
    """Colour crops of blood cells and platelets, resized to 32 pixels, three classes; train and val are trained on."""
    classes = ("RBC", "WBC", "Platelets")
    parts = {}
    for split, names in {"train": ("train", "val"), "test": ("test",)}.items():
        images, labels = [], []
        for name in names:
            for key in (root / f"BCCD/ImageSets/Main/{name}.txt").read_text().split():
                picture = Image.open(root / f"BCCD/JPEGImages/{key}.jpg").convert("RGB")
                for found in ET.parse(root / f"BCCD/Annotations/{key}.xml").iter("object"):
                    left, top, right, bottom = (
                        int(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
                    )
                    if right > left and bottom > top:  # two boxes are empty
                        half = max(right - left, bottom - top) / 2
                        x, y = (left + right) / 2, (top + bottom) / 2
                        box = tuple(map(round, (x - half, y - half, x + half, y + half)))
                        images.append(np.array(picture.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
                        labels.append(classes.index(found.findtext("name")))
        parts[split] = np.stack(images), np.array(labels)
    return cut(parts)


def cut(parts):
    """The first images of each split in a fixed random order."""
    found = {}
    for split, (images, labels) in parts.items():
        order = np.random.default_rng(0).permutation(len(images))[: NUM_TRAIN if split == "train" else NUM_TEST]
        found[split] = images[order], labels[order]
    return found


def write_images(parts, folder):
    """``SPLIT/CLASS/NUMBER.png``, as a user has images."""
    for split, (images, labels) in parts.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / str(label) / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def newsgroups(root):
    """Posts by date, 20 classes."""
    parts = {"train": ([], []), "test": ([], [])}
    with lzma.open(root / "20newsgroups/20news-bydate.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        for member in archive:
            pieces = member.name.split("/")
            if member.isfile() and len(pieces) >= 3:
                texts, labels = parts["train" if "train" in pieces[-3] else "test"]
                texts.append(archive.extractfile(member).read().decode("latin-1").strip())
                labels.append(pieces[-2])
    return parts


def sst2(root):
    """Sentences of film reviews, 2 classes."""
    return {split: read_tsv(root / f"SST-2/{split}.tsv") for split in ("train", "test")}


def read_tsv(file):
    rows = [line.rsplit("\t", 1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [text for text, _ in rows], [label for _, label in rows]


def ag_news(root):
    """Descriptions of news, 4 classes."""
    parts = {}
    for split, name in {"train": "train_10k", "test": "test"}.items():
        with gzip.open(root / f"AG_News/{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        parts[split] = [row["text"] for row in rows], [row["label"] for row in rows]
    return parts


def write_texts(parts, folder):
    """``SPLIT.csv`` with the columns text and label."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in parts.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(zip(*rows, strict=True))


IMAGES = {"fashion_mnist": fashion_mnist, "cifar10": cifar10, "nuclei": nuclei, "blood_cells": blood_cells}
TEXTS = {"20newsgroups": newsgroups, "sst2": sst2, "ag_news": ag_news}
