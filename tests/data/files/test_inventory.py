"""Every file on the disk is in exactly one split, or left out for a stated reason."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
from data.picture_files import grey, write_classes
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lab.data.files.inventory import folder_facts, take_inventory, tell_once
from ssl_lab.data.hub import _by_split
from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.text.hub_text import HubText


def take(root, kinds=(".txt",), **options):
    return take_inventory(str(root), kinds, **options)


def used(inventory):
    return {split: [file.name for file in files] for split, files in inventory.files.items()}


def left_out(inventory):
    return {reason: [file.name for file in files] for reason, files in inventory.left_out.items()}


def test_reasons(tmp_path):
    root = tmp_path / "corpus"
    for name in ("a.txt", "sub/b.txt", "c.txt.gz", "book.pdf", "note", "x.zip", "y.tar.gz", "z.pdf.gz", "d.txt", "d.txt.gz",
                 "README.txt", ".hidden.txt", ".git/config.txt", "__MACOSX/a.txt"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty.txt").touch()
    (root / "nowhere.txt").symlink_to("gone.txt")
    (root / "itself.txt").symlink_to("itself.txt")
    (root / "sub" / "up").symlink_to("..")
    (root / "copy.txt").symlink_to("a.txt")
    os.link(root / "a.txt", root / "sub" / "hard.txt")
    os.mkfifo(root / "pipe.txt")
    inventory = take(root)
    assert used(inventory) == {"train": ["a.txt", "c.txt.gz", "d.txt", "sub/b.txt"]}
    assert left_out(inventory) == {
        ".pdf": ["book.pdf"],
        ".pdf.gz": ["z.pdf.gz"],
        "without ending": ["note"],
        "packed": ["x.zip", "y.tar.gz"],
        "gzipped copy of a file beside it": ["d.txt.gz"],
        "about the data": ["README.txt"],
        "hidden": [".git", ".hidden.txt", "__MACOSX"],
        "empty": ["empty.txt"],
        "dangling link": ["itself.txt", "nowhere.txt"],
        "looping link": ["sub/up"],
        "already read by another name": ["sub/hard.txt", "copy.txt"],
        "neither file nor folder": ["pipe.txt"],
    }
    assert inventory.line().startswith(
        "train 4 files, 17 left out: 1 .pdf (book.pdf), 1 .pdf.gz (z.pdf.gz), 1 about the"
    )
    assert "2 dangling links (itself.txt, nowhere.txt)" in inventory.line()


def test_files_and_folders_that_cannot_be_opened_are_counted(tmp_path, monkeypatch):
    for name in ("a.txt", "secret.txt", "closed/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    scandir, access = os.scandir, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "secret" not in str(path) and access(path, mode))

    def refuse(path):
        if "closed" in str(path):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inventory = take(tmp_path)
    assert used(inventory) == {"train": ["a.txt"]}
    assert left_out(inventory) == {"not readable": ["secret.txt", "closed/"]}


def test_links_that_lead_in_circles_end(tmp_path):
    for k in range(6):
        (tmp_path / f"d{k}").mkdir()
        (tmp_path / f"d{k}" / f"{k}.txt").write_text("x")
    for k in range(6):
        for j in range(6):
            (tmp_path / f"d{k}" / f"to{j}").symlink_to(tmp_path / f"d{j}")
    assert used(take(tmp_path)) == {"train": [f"d{k}/{k}.txt" for k in range(6)]}


def test_a_folder_of_links_is_read(tmp_path):
    (tmp_path / "blobs").mkdir()
    for name in ("train", "test"):
        (tmp_path / "blobs" / name).write_text(name)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.txt").symlink_to(f"../blobs/{name}")  # as in the cache of the hub
    assert used(take(tmp_path / "data")) == {"train": ["train.txt"], "test": ["test.txt"]}


@pytest.mark.parametrize("how", ["file", "folder", "hard"])
def test_one_real_file_in_two_splits_is_refused_with_both_paths(tmp_path, how):
    for name in ("train/a.txt", "test/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    if how == "file":
        (tmp_path / "train" / "c.txt").symlink_to("../test/b.txt")
    elif how == "folder":
        (tmp_path / "val").symlink_to("test")
    else:
        os.link(tmp_path / "test" / "b.txt", tmp_path / "train" / "c.txt")
    with pytest.raises(
        ValueError, match=r"(train/c|val/b|test/b)\.txt in \w+ and (test/b|train/c)\.txt in \w+ are one file"
    ):
        take(tmp_path)


def test_a_link_deep_below_one_split_to_another_is_refused(tmp_path):
    for name in ("a/b/train/cat/1.txt", "a/b/test/cat/2.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a/b/train/cat/more").symlink_to(tmp_path / "a/b/test/cat")
    with pytest.raises(
        ValueError, match=r"train/cat/more/2\.txt in train and a/b/test/cat/2\.txt in test are one file"
    ):
        take(tmp_path)


def test_a_link_to_a_split_beside_it_changes_nothing_and_train_may_be_pretrained_on(tmp_path):
    for name in ("train/a.txt", "test/b.txt", "unlabeled/c.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    (tmp_path / "latest").symlink_to("train")
    (tmp_path / "unlabeled" / "too").symlink_to("../train")
    (tmp_path / "unlabeled" / "again.txt").symlink_to("../train/a.txt")
    inventory = take(tmp_path)
    assert used(inventory) == {
        "train": ["train/a.txt"], "test": ["test/b.txt"], "pretrain": ["unlabeled/again.txt", "unlabeled/c.txt"],
    }  # fmt: skip
    assert left_out(inventory) == {"already read by another name": ["latest/a.txt", "unlabeled/too/a.txt"]}


def test_one_image_of_two_classes_is_refused(tmp_path):
    root = write_classes(tmp_path / "pets", per_class=3)
    os.link(root / "cat" / "1.png", root / "dog" / "x.png")
    with pytest.raises(ValueError, match=r"Cannot label cat/1\.png: dog/x\.png in another class is the same file"):
        ImageFolder(str(root)).spec  # noqa: B018


def test_names_of_any_bytes(tmp_path, capsys):
    names = ["a\nb.txt", "c,d=[e]*.txt", os.fsdecode(b"caf\xe9.txt"), "\u202e.txt", "é.txt"]
    for name in names:
        (tmp_path / name).write_text("\n\n".join(f"words of one text {k}" for k in range(4)))
    (tmp_path / os.fsdecode(b"\xff.pdf")).touch()
    data = HubText(str(tmp_path), vocab_size=100)
    assert sum(len(texts) for split in data.splits for texts in data.documents(split)) == 20
    assert r"1 .pdf (\xff.pdf)" in capsys.readouterr().out
    for k, name in enumerate(map(os.fsdecode, (b"\xff1", b"\xff2"))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        grey(k).save(tmp_path / "pets" / name / os.fsdecode(b"\xfe.png"))
    pets = ImageFolder(str(tmp_path / "pets"), val_fraction=0, test_fraction=0)
    assert pets.spec.class_names == (r"\xff1", r"\xff2") and pets.columns("train")["label"].tolist() == [0, 1]


def test_a_path_that_the_reader_takes_for_something_else(tmp_path):
    (tmp_path / "a::b.txt").write_text("text")
    with pytest.raises(ValueError, match=r"Cannot read .*a::b\.txt: .*Rename it"):
        HubText(str(tmp_path)).splits  # noqa: B018


def test_text_is_read_again_when_a_file_has_the_same_size_and_time(tmp_path):
    def documents():
        return next(
            HubText(str(file), sample_by="line", val_fraction=0, test_fraction=0, vocab_size=60).documents("train")
        )

    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    before = file.stat()
    assert documents() == ["one", "two"]
    file.write_text("six\nten\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert documents() == ["six", "ten"]


def test_images_are_decoded_again_when_a_file_is_added_removed_renamed_or_replaced(tmp_path):
    def pixels():
        data = ImageFolder(str(root), val_fraction=0, test_fraction=0)
        return sorted(data.columns("train")["image"][:, 0, 0, 0].tolist())

    root = tmp_path / "pets"
    root.mkdir()
    for k in (1, 2):
        grey(k).save(root / f"{k}.bmp")
    assert pixels() == [1, 2]
    grey(3).save(root / "3.bmp")
    assert pixels() == [1, 2, 3]
    (root / "1.bmp").unlink()
    assert pixels() == [2, 3]
    before = (root / "2.bmp").stat()
    grey(9).save(root / "2.bmp")  # the same size
    os.utime(root / "2.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pixels() == [3, 9]
    digest = take_inventory(str(root), (".bmp",)).digest
    (root / "3.bmp").rename(root / "4.bmp")
    assert take_inventory(str(root), (".bmp",)).digest != digest


def test_files_that_change_while_they_are_read_are_no_data_set(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "pets", per_class=3)
    build = ImageFolder.__mro__[1]._build

    def and_more(self, folder):
        build(self, folder)
        grey(1).save(root / "cat" / "new.png")

    monkeypatch.setattr(ImageFolder.__mro__[1], "_build", and_more)
    with pytest.raises(ValueError, match="Files of pets changed while they were read"):
        ImageFolder(str(root), val_fraction=0, test_fraction=0).spec  # noqa: B018


@pytest.mark.parametrize("ending", ["jfif", "JPEG", "webp", "tif", "bmp", "avif", "tga", "ico"])
def test_what_pillow_reads_is_used(tmp_path, ending):
    if ending == "avif":
        pytest.importorskip("PIL._avif")
    for k in range(2):
        kind = {"jfif": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
        grey(k, (16, 16)).convert("RGB").save(tmp_path / f"{k}.{ending}", kind)
    assert len(ImageFolder(str(tmp_path), val_fraction=0, test_fraction=0).columns("train")["image"]) == 2


def test_one_line_is_printed_once_and_on_the_first_rank(tmp_path, capsys, monkeypatch):
    for k, name in enumerate(("train/cat/1.png", "train/dog/1.png", "test/cat/1.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        grey(k).save(tmp_path / name)
    (tmp_path / "test" / "cat" / "1.heic").write_text("x")
    for _ in range(2):
        ImageFolder(str(tmp_path), val_fraction=0).columns("train")
    line = f"{tmp_path.name}: train 2 files, test 1 file, 1 left out: 1 .heic (test/cat/1.heic); 2 classes; "
    assert capsys.readouterr().out == f"{line}test has no images of dog.\n"
    monkeypatch.setattr("lightning.fabric.utilities.rank_zero.rank_zero_only.rank", 1)
    tell_once("another rank")
    assert capsys.readouterr().out == ""


def test_splits_of_one_kind_on_the_hub_are_joined_and_others_told(capsys):
    rows = {name: Dataset.from_dict({"text": [f"{name} {k}" for k in range(2)]}) for name in
            ("train_r1", "train_r2", "validation_matched", "validation_mismatched", "extra")}  # fmt: skip
    splits = _by_split(DatasetDict(rows), "nobody/several")
    assert {split: len(found) for split, found in splits.items()} == {"train": 4, "val": 4}
    assert capsys.readouterr().out == "nobody/several: train 4 rows, val 4 rows, left out: extra (2 rows).\n"
    rows["train_r2"] = Dataset.from_dict({"text": [[1, 2]]})
    with pytest.raises(ValueError, match=r"Cannot join train_r1 and train_r2.* of nobody/several"):
        _by_split(DatasetDict(rows), "nobody/several")


def test_facts_of_a_folder_follow_its_files(tmp_path):
    (tmp_path / "x").write_text("1")
    (tmp_path / "again").symlink_to(".")
    before = folder_facts(tmp_path)
    (tmp_path / "x").write_text("2")
    assert before != folder_facts(tmp_path) and len(before) == 1


NAMES = [
    "train",
    "test",
    "val",
    "a",
    "b",
    "cat",
    "training",
    "unlabeled",
    ".h",
    "c.txt",
    "d.pdf",
    "test.txt",
    "train.txt",
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.integers(0, 12)), max_size=10)
)  # fmt: skip
def test_every_file_is_used_once_or_left_out(trees):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for k, (parts, kind) in enumerate(trees):
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == 0:
                    path.symlink_to(root / trees[k - 1][0][0])
                elif kind == 1:
                    os.link(root.joinpath(*trees[k - 1][0]), path)
                else:
                    path.write_text("" if kind == 2 else f"{k}")
            except OSError:
                continue
        try:
            inventory = take(root)
        except ValueError as error:
            assert str(error).startswith("Cannot ")
            return
        found = [file for files in inventory.files.values() for file in files]
        out = [os.path.normpath(file.path) for files in inventory.left_out.values() for file in files]
        paths = {file.path for file in found}
        assert len(paths) == len(found) and not paths & set(out)
        for split, other in (("train", "val"), ("train", "test"), ("val", "test"), ("pretrain", "test")):
            one, two = ({f.real for f in inventory.files.get(name, ())} for name in (split, other))
            assert not one & two
        for parent, _, names in os.walk(root):  # without links
            for name in names:
                path = os.path.join(parent, name)
                assert path in paths or any(path == o or path.startswith(o + os.sep) for o in out), path


def test_a_socket_is_no_file(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.txt"))
        (tmp_path / "a.txt").write_text("x")
        assert left_out(take(tmp_path)) == {"neither file nor folder": ["s.txt"]}
