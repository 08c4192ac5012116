import json
import os

import datasets
import numpy as np
import pytest
import torch
from data.picture_files import grey, write_captioned
from PIL import Image

from ssl_lab.data.pair.image_text import ImageTextPairs

SPLITS = ("train", "val", "test")


@pytest.fixture
def table(tmp_path):
    return write_captioned(tmp_path / "squares")


def make(table, **settings):
    return ImageTextPairs(str(table), **{"image_size": None, "vocab_size": 200, "batch_size": 4} | settings)


def read(data, ids):
    return data.tokenizer.decode(ids, skip_special_tokens=True)


def numbers(data, split):
    return np.array(data.columns(split)["image"])[:, 1, 0, 0].tolist()


def test_images_meet_all_of_their_captions_once(table):
    data = make(table)
    for split in SPLITS:
        captions = data.columns(split)["captions"]
        assert captions.shape[1:] == (2, 32) and captions.dtype == np.int16
        for number, (long, short) in zip(numbers(data, split), captions, strict=True):
            name = ("red", "blue")[number % 2]
            assert read(data, long) == f"a {name} square {number}." and read(data, short) == f"{name} {number}"
    assert sorted(sum((numbers(data, split) for split in SPLITS), [])) == list(range(20))


def test_spec_holds_the_facts_of_both(table):
    data = make(table, max_length=12, label_column="colour")
    spec = data.spec
    assert (spec.image.shape, spec.text.length) == ((3, 8, 8), 12)
    assert spec.text.vocab_size == len(data.tokenizer) and spec.text.pad_id == 0 and len(spec.image.mean) == 3
    assert spec.class_names == ("blue", "red")


def test_splits_by_column(table):
    data = make(table, split_column="part")
    with pytest.warns(UserWarning, match="8 of 40 rows are left out: 'part' says other, not train, val or test"):
        data.columns("train")
    for split, parts in {"train": (0, 1), "val": (2,), "test": (3,)}.items():
        assert numbers(data, split) == [i for i in range(20) if i % 5 in parts]
    with pytest.raises(ValueError, match=r"no row says train; it holds \['blue', 'red'\]"):
        make(table, split_column="colour").columns("train")


def test_each_epoch_shows_another_caption_and_the_seed_says_which(table):
    def epochs(seed, num=4):
        loader = make(table, val_fraction=0, test_fraction=0, seed=seed).train_dataloader()
        shown = []
        for epoch in range(num):
            loader.sampler.set_epoch(epoch)
            batches = list(loader)
            assert set(batches[0]) == {"image", "input_ids", "attention_mask", "index"}
            index = torch.cat([batch["index"] for batch in batches])
            ids = torch.cat([batch["input_ids"] for batch in batches])
            shown.append(ids[index.argsort()])
        return shown

    first = epochs(0)
    assert all(torch.equal(*pair) for pair in zip(first, epochs(0), strict=True))
    assert torch.equal(first[0], first[2]) and torch.equal(first[1], first[3])
    assert (first[0] != first[1]).any(1).all(), "two captions take turns"
    lengths = (first[0] != 0).sum(1)
    assert lengths.min() < lengths.max(), "not all images start at the same one"
    assert not torch.equal(first[0], epochs(1, 1)[0])


def test_one_epoch_is_the_same_after_a_resume_and_from_a_memory_map(table):
    whole = list(make(table).train_dataloader())
    loader = make(table, device_cache_gib=0.0).train_dataloader()
    loader.load_state_dict({"epoch": 0, "batches_done": 1})
    for found, expected in zip(loader, whole[1:], strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_evaluation_has_all_captions_and_the_first_as_text(table):
    data = make(table)
    batch = next(iter(data.eval_dataloader("val")))
    assert batch["captions"].dtype == torch.int64
    assert torch.equal(batch["captions"][:, 0], batch["input_ids"])
    assert torch.equal(batch["attention_mask"] == 1, batch["input_ids"] != 0)


def test_contents_and_lists_of_captions_in_parquet(tmp_path):
    features = datasets.Features({"picture": datasets.Image(), "says": datasets.List(datasets.Value("string"))})
    rows = {"picture": [grey(i) for i in range(6)], "says": [["one"], ["two", "", "three"], [], ["x"], ["y"], ["z"]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    columns = {"image_column": "picture", "caption_column": "says", "channels": None}
    data = make(tmp_path / "train.parquet", val_fraction=0, test_fraction=0, **columns)
    with pytest.warns(UserWarning, match="1 of 6 images of train have no caption and are left out"):
        data.columns("train")
    assert np.array(data.columns("train")["image"])[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 5], "the third has no caption"
    captions = data.columns("train")["captions"]
    assert [read(data, ids) for ids in captions[1]] == ["two", "three"]
    assert (captions[0, 1] == 0).all(), "missing captions are padding"
    batches = list(data.train_dataloader())
    assert all((batch["attention_mask"].sum(1) > 0).all() for batch in batches)


def test_unreadable_images_leave_with_their_captions(table):
    (table.parent / "pictures/3.png").write_bytes(b"broken")
    data = make(table, val_fraction=0, test_fraction=0)
    with pytest.warns(UserWarning, match=r"1 images of captions\.tsv could not be read"):
        captions = data.columns("train")["captions"]
    assert [int(read(data, ids[1]).split()[1]) for ids in captions] == [i for i in range(20) if i != 3]


def test_changed_files_are_read_again(table):
    make(table).columns("train")
    for i in range(20):
        Image.new("RGB", (10, 10)).save(table.parent / f"pictures/{i}.png")
    assert make(table).spec.shape == (3, 10, 10)


def test_what_cannot_be_read(table, tmp_path):
    with pytest.raises(ValueError, match=r"caption_column='text' is not a column.*'caption'"):
        make(table, caption_column="text").columns("train")
    with pytest.raises(FileNotFoundError, match=r"image pictures/0\.png in .*nor any other\. Set data\.image_root"):
        make(table, image_root=str(tmp_path)).columns("train")
    assert make(table, image_root=str(table.parent)).spec.shape == (3, 8, 8)
    with pytest.raises(ValueError, match="max_length"):
        make(table, max_length=2)
    (tmp_path / "blank.tsv").write_text("image\tcaption\na.png\t\nb.png\t\n")
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"no captions.*data\.caption_column"):
        make(tmp_path / "blank.tsv").columns("train")


@pytest.mark.filterwarnings("ignore:8 of 41 rows are left out")
def test_an_image_is_in_one_split(table):
    text = table.read_text()
    head, first, *rest = text.splitlines()
    other = first.replace("train", "test")
    table.write_text("\n".join([head, first, other, *rest]) + "\n")
    with pytest.raises(ValueError, match="is in the rows of .* and of .*Give each image one split"):
        make(table, split_column="part").columns("train")


def test_a_split_column_cuts_one_table(table):
    (table.parent / "train.tsv").write_text(table.read_text())
    (table.parent / "test.tsv").write_text(table.read_text())
    table.unlink()
    with pytest.raises(ValueError, match="split_column='part' cuts one table, but .* has train, test"):
        make(table.parent, split_column="part").columns("train")


def test_missing_images_and_images_without_a_row_are_counted(table, capsys):
    (table.parent / "pictures" / "4.png").unlink()
    grey(1).save(table.parent / "pictures" / "stray.png")
    data = make(table.parent, val_fraction=0, test_fraction=0)
    with pytest.warns(UserWarning, match=r"1 images of squares could not be read .*4\.png"):
        assert len(data.columns("train")["image"]) == 19
    assert capsys.readouterr().out == (
        "squares: train 1 file.\n"
        "squares: 1 file named by a row but missing (pictures/4.png), 1 file named by no row (pictures/stray.png).\n"
    )


def test_one_image_of_several_names_is_one_image(table):
    os.link(table.parent / "pictures/0.png", table.parent / "pictures/hard.png")
    lines = ["image\tcaption", "pictures/0.png\ta", "./pictures/0.png\tb", "pictures/hard.png\tc", "pictures/1.png\td"]
    (table.parent / "some.tsv").write_text("\n".join(lines) + "\n")
    captions = make(table.parent / "some.tsv", val_fraction=0, test_fraction=0).columns("train")["captions"]
    assert captions.shape[:2] == (2, 3)
    for name, rows in (("train", lines[:2]), ("test", [lines[0], lines[3]])):
        (table.parent / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    with pytest.raises(
        ValueError, match=r"pictures/hard\.png is in the rows of train and of test, there as pictures/0"
    ):
        ImageTextPairs({split: str(table.parent / f"{split}.tsv") for split in ("train", "test")}).columns("train")


@pytest.mark.parametrize(
    ("cells", "column"), [({"image": 7, "caption": "a"}, "image"), ({"image": "a", "caption": 7}, "caption")]
)
def test_numbers_are_no_images_and_no_captions(tmp_path, cells, column):
    (tmp_path / "x.jsonl").write_text((json.dumps(cells) + "\n") * 12)
    with pytest.raises(ValueError, match=f"{column}_column='{column}' holds Value"):
        ImageTextPairs(str(tmp_path / "x.jsonl"), image_size=8, vocab_size=60).spec  # noqa: B018
