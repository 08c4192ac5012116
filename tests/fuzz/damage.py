"""Damaged files: each is refused by a message that names it, or counted as left out, or read as it was written.

``python tests/fuzz/damage.py [NUM] [SEED]`` damages NUM files and prints what happened to them.
"""

import io
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

from ssl_lab.data.image.hub_images import HubImages
from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.prepare import prepare
from ssl_lab.data.text.shards import TokenShards
from ssl_lab.data.text.tokenizer import tokenizer_digest
from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint

KINDS = ("truncated", "flipped", "zeroed", "empty", "foreign")
REFUSED = (ValueError, FileNotFoundError)
SIDE = 16
WRONG = "WRONG,"


def damaged(content, kind, rng):
    """A file's content after an accident."""
    place = rng.randrange(len(content))
    if kind == "truncated":
        return content[:place]
    if kind == "flipped":
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == "zeroed":
        end = min(len(content), place + rng.choice((1, 16, 512)))
        return content[:place] + bytes(end - place) + content[end:]
    return b"" if kind == "empty" else rng.choice((rng.randbytes(300), b"A text.\n" * 30, b"PK\x03\x04", b"\x80\x04."))


def odd_name(i, rng):
    """A name that a file system allows; the last is no UTF-8."""
    return rng.choice((f"{i}", f"a b {i}", f"é{i}", f"'{i}\"$x", f"-{i}", f"line\n{i}", os.fsdecode(b"\xff%d" % i)))


def picture(rng, form):
    """An image file's content."""
    pixels = np.frombuffer(rng.randbytes(3 * SIDE * SIDE), np.uint8).reshape(SIDE, SIDE, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pictures(num, rng):
    """Contents of image files, the damaged first and whole ones behind them."""
    contents = []
    for i in range(num + num // 3 + 20):
        whole = picture(rng, "PNG" if i % 2 else "JPEG")
        kind = rng.choice(KINDS) if i < num else "whole"
        contents.append(whole if kind == "whole" else damaged(whole, kind, rng))
    return contents


def account(data, num):
    """How many images were kept and reported as left out; together they are all."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = sum(len(data.columns(split)["image"]) for split in ("train", "val", "test"))
    told = [str(warning.message) for warning in caught if "could not be read and were left out" in str(warning.message)]
    left_out = int(told[0].split()[0]) if told else 0
    if isinstance(data, ImageFolder):
        left_out += sum(map(len, data._inventory.left_out.values()))  # empty files
    assert kept + left_out == num, (kept, left_out, num)
    return Counter({"images read": kept, "images left out and counted": left_out})


def damage_image_files(folder, num, rng):
    """A folder of images with odd names."""
    contents = pictures(num, rng)
    folder.mkdir()
    for i, content in enumerate(contents):
        place = folder / rng.choice("ab") / (odd_name(i, rng) + rng.choice((".png", ".JPG", ".webp", ".tiff")))
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    return account(ImageFolder(str(folder), image_size=SIDE, channels=3), len(contents))


def damage_image_cells(folder, num, rng):
    """A whole parquet file with damaged images."""
    contents = pictures(num, rng)
    folder.mkdir()
    write_parquet(folder / "train.parquet", contents)
    return account(HubImages(str(folder / "train.parquet"), image_size=SIDE, channels=3), len(contents))


def write_parquet(path, contents):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    cells = [{"bytes": content, "path": None} for content in contents]
    rows = {"image": cells, "label": [i % 2 for i in range(len(contents))]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def damage_parquet_files(folder, num, rng):
    """Damaged parquet files; nothing in the format notices a changed bit of a cell, only the images' own checksums do."""
    folder.mkdir()
    write_parquet(folder / "whole.parquet", [picture(rng, "PNG") for _ in range(40)])
    whole = (folder / "whole.parquet").read_bytes()
    found = Counter()
    for i in range(num):
        path = folder / f"damaged_{i}.parquet"
        path.write_bytes(damaged(whole, kind := rng.choice(KINDS), rng))

        def read(path=path):
            account(HubImages(str(path), image_size=SIDE, channels=3), 40)

        # Where the schema is damaged, columns are not found, and the message names the setting that says which.
        found[f"parquet {kind}: {outcome(read, None, (path.name, 'data.image_column', 'data.label_column'))}"] += 1
        path.unlink()
    return found


def outcome(read, expected, names):
    """Whether ``read`` refuses by a message with one of the names, or returns what is expected; else what is wrong."""
    try:
        contents = read()
    except REFUSED as error:
        return "refused" if any(str(name) in str(error) for name in names) else f"{WRONG} names no file: {error!r}"
    except Exception as error:
        return f"{WRONG} {error!r}"
    return "read as written, or counted" if same(contents, expected) else f"{WRONG} other contents"


def same(a, b):
    """Whether nested containers are equal to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def damage_checkpoints(folder, num, rng):
    """Damaged checkpoints: refused, or the bit did not matter."""
    folder.mkdir()
    path = folder / "last.ckpt"
    state = {f"layer.{k}.weight": torch.randn(40, 10) for k in range(4)}
    more = {"global_step": 7, "callbacks": {"position": [1, 2]}, "ema": state["layer.0.weight"].bfloat16()}
    torch.save({"state_dict": state, **more}, path)
    whole, expected = path.read_bytes(), read_checkpoint(path)
    found = Counter()
    for _ in range(num):
        path.write_bytes(damaged(whole, kind := rng.choice(KINDS), rng))
        found[f"checkpoint {kind}: {outcome(lambda: read_checkpoint(path), expected, (path,))}"] += 1
    return found


def rows_of(folder):
    """All that training reads from shards."""
    data = TokenShards(str(folder), max_length=32)
    ids = {split: data.columns(split)["input_ids"].whole().tobytes() for split in ("train", "val", "test")}
    return ids, {split: data.text_counts(split) for split in ids}, tokenizer_digest(data.tokenizer), data.title


def damage_shards(folder, num, rng):
    """Any file of a prepared corpus."""
    folder.mkdir()
    corpus, out = folder / "corpus.txt", folder / "shards"
    corpus.write_text("\n\n".join(f"Paragraph {i} is about the number {i * i}." for i in range(300)))
    prepare(HubText(str(corpus), vocab_size=200), out, num_workers=1, shard_mib=0.005)
    expected = rows_of(out)
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    found = Counter()
    for _ in range(num):
        path = rng.choice(files)
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, kind := rng.choice(KINDS), rng))
        name = "ids and lengths" if path.suffix == ".npy" else path.name
        place = path.parent if path.parent != out else path.name.split(".")[0]
        found[f"shards, {name} {kind}: {outcome(lambda: rows_of(out), expected, (place,))}"] += 1
        path.write_bytes(whole)
    return found


SHARES = (
    (damage_image_files, 0.35),
    (damage_image_cells, 0.2),
    (damage_parquet_files, 0.1),
    (damage_checkpoints, 0.2),
    (damage_shards, 0.15),
)


def damage(folder, num, seed):
    """Damage ``num`` files of all kinds below a folder; the counts of what happened.

    Raises:
        AssertionError: If an image is neither read nor counted.
    """
    rng = random.Random(seed)
    found = Counter()
    for do, share in SHARES:
        found += do(folder / do.__name__, round(num * share), rng)
    return found


if __name__ == "__main__":
    num, seed = (int(word) for word in (sys.argv[1:] + ["1000", "0"][len(sys.argv) - 1 :]))
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        os.environ["SSL_LAB_CACHE"] = f"{name}/cache"
        datasets.config.HF_DATASETS_CACHE = Path(name) / "datasets"
        counts = damage(Path(name), num, seed)
    print(f"{num} damaged files, seed {seed}")
    for what, count in sorted(counts.items()):
        print(f"{count:6}  {what}")
