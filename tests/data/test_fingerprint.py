"""The fingerprint of data tells other content of the same size, and nothing else."""

import os
import shutil

import numpy as np
import pytest
import torch
from arrays import ArrayImages
from data.image.test_hub_images import write_parquet
from data.picture_files import grey, write_captioned, write_classes

from ssl_lab.data import fingerprint as module
from ssl_lab.data.fingerprint import changes, content_digest
from ssl_lab.data.image.digits import Digits
from ssl_lab.data.image.hub_images import HubImages
from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.pair.image_text import ImageTextPairs
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.prepare import prepare
from ssl_lab.data.text.shards import TokenShards
from ssl_lab.data.text.text_pairs import TextPairs

WORDS = {"vocab_size": 120, "max_length": 8}


def write_text(folder, word="cat"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"the red {word if k == 7 else 'dog'} sat on mat {k}" for k in range(30)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder / "text.txt"


def text(folder, changed):
    return HubText(str(write_text(folder, "hen" if changed else "cat")), sample_by="line", **WORDS)


def pairs(folder, changed):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"a {k},b {k},{0.5 if changed and k == 3 else 1}" for k in range(20)]
    (folder / "pairs.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]))
    return TextPairs(str(folder / "pairs.csv"), score_column="score", **WORDS)


def shards(folder, changed):
    out = folder / ("b" if changed else "a")
    prepare(text(folder, changed), out, num_workers=1, shard_mib=1)
    return TokenShards(str(out), max_length=8)


def images(folder, changed):
    root = folder / "pets"
    if not root.is_dir():
        write_classes(root)
    if changed:
        grey(99).save(root / "cat/3.png")
    return ImageFolder(str(root))


def labels(folder, changed):
    """Two images change places, and so classes."""
    root = folder / "pets"
    if not root.is_dir():
        write_classes(root)
    if changed:
        for one, other in (("cat/3.png", "dog/x.png"), ("dog/3.png", "cat/3.png"), ("dog/x.png", "dog/3.png")):
            shutil.move(root / one, root / other)
    return ImageFolder(str(root))


def captions(folder, changed):
    table = folder / "squares/captions.tsv"
    if not table.is_file():
        write_captioned(folder / "squares")
    if changed:
        table.write_text(table.read_text().replace("square 3.", "circle 3."))
    return ImageTextPairs(str(table), image_size=None, vocab_size=200)


def parquet(folder, changed):
    return HubImages(str(write_parquet(folder / "pets", names=("cat", "dog", "hen") if changed else ("cat", "dog"))))


@pytest.mark.parametrize(
    "kind", [text, pairs, shards, images, labels, captions, parquet], ids=lambda kind: kind.__name__
)
def test_other_content_of_the_same_size_is_told(kind, tmp_path):
    before = kind(tmp_path, changed=False).fingerprint
    assert kind(tmp_path, changed=False).fingerprint == before
    assert set(before) == {"pretrain", "train", "val", "test"}
    now = kind(tmp_path, changed=True).fingerprint
    assert before != now and "of other content" in changes(before, now)
    assert [fact.split()[0] for fact in before.values()] == [fact.split()[0] for fact in now.values()]


def test_the_place_and_the_age_of_files_do_not_count(tmp_path):
    before = images(tmp_path, changed=False).fingerprint
    shutil.copytree(tmp_path / "pets", tmp_path / "elsewhere/pets")
    os.utime(tmp_path / "elsewhere/pets/cat/1.png")
    assert ImageFolder(str(tmp_path / "elsewhere/pets")).fingerprint == before


def test_a_test_split_that_changes_alone_is_named():
    class Other(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            return {**columns, "image": columns["image"] + 1} if split == "test" else columns

    assert changes(ArrayImages().fingerprint, Other().fingerprint) == "test: 64 samples of other content"
    assert changes(ArrayImages().fingerprint, ArrayImages(num_samples=63).fingerprint).startswith(
        "pretrain: 64 samples, now 63 samples; train:"
    )
    assert Digits().fingerprint == Digits().fingerprint


def test_a_fault_of_the_data_is_no_missing_split():
    class Faulty(ArrayImages):
        def columns(self, split):
            if split == "test":
                raise ValueError("The files of test are damaged.")
            return super().columns(split)

    with pytest.raises(ValueError, match="files of test are damaged"):
        Faulty().fingerprint  # noqa: B018


def test_of_a_large_column_a_part_counts(monkeypatch):
    column = np.arange(1000, dtype=np.int64)
    monkeypatch.setattr(module, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(module, "_PART_BYTES", 80)
    before = content_digest(column)
    column[0] = 5
    assert content_digest(column) != before
    assert content_digest(torch.from_numpy(column)) != content_digest(torch.from_numpy(column)[:500])
