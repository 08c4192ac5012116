"""Files of several splits with one content are counted on the line of the splits."""

import pytest
from data.picture_files import write_captioned, write_classes

from ssl_lab.data.files import copies as module
from ssl_lab.data.files import inventory
from ssl_lab.data.files.inventory import take_inventory
from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.pair.image_text import ImageTextPairs
from ssl_lab.data.text.hub_text import HubText


@pytest.fixture(autouse=True)
def tell_each_time():
    inventory.tell_once.cache_clear()


def line(root, capsys, kinds=(".bin",)):
    take_inventory(str(root), kinds, one_of_many=True).tell("x")
    return capsys.readouterr().out.strip()


def write(root, **content):
    for name, text in content.items():
        path = root / f"{name.replace('_', '/')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def test_copies_across_splits_are_counted(tmp_path, capsys):
    long = b"a" * 30_000
    write(
        tmp_path,
        train_a=b"one",
        train_b=b"two",
        train_c=long,
        val_d=b"three",
        test_e=b"two",
        test_f=b"one",
        test_g=b"six",
    )
    write(
        tmp_path, test_h=long[:-1] + b"b", test_i=b"b" + long[:-1], val_j=long, unlabeled_k=b"three", unlabeled_l=b"one"
    )
    assert line(tmp_path, capsys) == (
        "x: train 3 files, val 2 files, test 5 files, pretrain 2 files; 1 file of val is byte-identical to files of "
        "train (val/j.bin to train/c.bin); 1 file of val is byte-identical to files of pretrain (val/d.bin to "
        "unlabeled/k.bin); 2 files of test are byte-identical to files of train (test/f.bin to train/a.bin); 1 file of "
        "test is byte-identical to files of pretrain (test/f.bin to unlabeled/l.bin)."
    )


def test_copies_within_train_count_where_splits_are_cut_from_it(tmp_path, capsys):
    write(tmp_path, train_a=b"one", train_b=b"one", train_c=b"one", test_d=b"two")
    assert "2 files of train are byte-identical to other files of train" in line(tmp_path, capsys)
    write(tmp_path, val_e=b"six")
    assert line(tmp_path, capsys) == "x: train 3 files, val 1 file, test 1 file."


def test_files_of_other_sizes_are_not_opened(tmp_path, capsys, monkeypatch):
    write(tmp_path, train_a=b"one", val_b=b"four", test_c=b"seven", train_d=b"two")
    monkeypatch.setattr(module, "_middle", lambda file: pytest.fail(f"{file} was opened"))
    assert "identical" not in line(tmp_path, capsys)


def test_images_texts_and_images_of_a_table(tmp_path, capsys):
    for split in ("train", "test"):
        write_classes(tmp_path / "pets" / split, per_class=2)
    ImageFolder(str(tmp_path / "pets"), val_fraction=0).spec  # noqa: B018
    assert "; 2 classes; 4 files of test are byte-identical to files of train" in capsys.readouterr().out
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("a line\n" * 9)
    HubText({"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt")}, vocab_size=60).spec  # noqa: B018
    assert "1 file of test is byte-identical to files of train" in capsys.readouterr().out
    table = write_captioned(tmp_path / "squares")
    pictures = tmp_path / "squares/pictures"
    (pictures / "3.png").write_bytes((pictures / "0.png").read_bytes())
    data = ImageTextPairs(str(table), split_column="part", image_size=None, vocab_size=200)
    with pytest.warns(UserWarning, match="rows are left out"):
        data.spec  # noqa: B018
    assert "1 file of test is byte-identical to files of train (pictures/3.png to pictures/0.png)" in (
        capsys.readouterr().out
    )
