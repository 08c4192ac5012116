"""``ssl-lab embed`` and ``ssl-lab neighbours``: a row for each file in their order, and what is most similar to one."""

import csv
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.picture_files import write_classes

from ssl_lab.cli.main import main
from ssl_lab.cli.using import embed, neighbours
from ssl_lab.predict.inputs import walk_files

TEXTS = [f"{('free prize call now', 'see you at home')[k % 2]} {k}" for k in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on pictures and on pairs of texts."""
    folder = tmp_path_factory.mktemp("embed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_classes(folder / "photos", size=(12, 9))
        tiny = ["trainer=smoke", "trainer.max_steps=1", "data.batch_size=8", "evaluation=none"]
        photos = ["data=image_folder", "data.root=photos", "data.channels=1", "data.image_size=8"]
        assert main(["pretrain", "method=vae", *photos, "encoder.widths=[4,8]", *tiny, "run_dir=vae"]) == 0
        with (folder / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("sentence1", "sentence2"), *zip(TEXTS, TEXTS[::-1], strict=True)])
        pairs = ["data=text_pairs", "data.path=pairs.csv", "data.vocab_size=90", "data.max_length=12"]
        assert main(["pretrain", "method=simcse", "encoder=bert_tiny", *pairs, *tiny, "run_dir=texts"]) == 0
        yield folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_in_the_order_of_the_files_though_splits_are_cut(folder):
    assert main(["embed", "run=vae", "out=all.parquet"]) == 0
    found = pq.read_table(folder / "all.parquet")
    files = sorted(f"photos/{name}/{k}.png" for name in ("cat", "dog") for k in range(10))
    assert found["path"].to_pylist() == files
    assert found["class"].to_pylist() == ["cat"] * 10 + ["dog"] * 10
    assert found["label"].to_pylist() == [0] * 10 + [1] * 10
    assert main(["embed", "run=vae", "out=all.parquet", "splits=[test,train]"]) == 0
    parts = pq.read_table(folder / "all.parquet")
    assert parts["split"].to_pylist()[:2] == ["test", "test"] and parts["index"].to_pylist()[:3] == [0, 1, 0]
    by_path = dict(zip(files, found["features"].to_pylist(), strict=True))
    for path, features in zip(parts["path"].to_pylist(), parts["features"].to_pylist(), strict=True):
        np.testing.assert_allclose(features, by_path[path], atol=1e-6)


def test_files_of_a_user_as_array_and_table_and_from_python(folder, capsys):
    assert main(["embed", "run=vae", "out=all.parquet"]) == 0
    wanted = np.array(pq.read_table(folder / "all.parquet")["features"].to_pylist())
    assert main(["embed", "run=vae", "input=photos", "out=new.npy"]) == 0
    assert main(["embed", "run=vae", "input=photos", "out=new.npy"]) == 0, "its own file"
    assert "20 rows of 16 features: new.npy. Rows: new.rows.csv" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(folder / "new.npy"), wanted, atol=1e-6)
    assert [row["path"] for row in rows_of(folder / "new.rows.csv")] == pq.read_table("all.parquet")["path"].to_pylist()
    assert main(["embed", "run=vae", "input=photos/cat/3.png", "out=one.csv"]) == 0
    (row,) = rows_of(folder / "one.csv")
    np.testing.assert_allclose([float(row[f"features.{k}"]) for k in range(16)], wanted[3], atol=1e-6)
    np.testing.assert_allclose(embed("vae", "photos/cat/3.png"), wanted[3:4], atol=1e-6)
    assert main(["embed", "run=texts", "text=one text", "out=text.csv"]) == 0
    (row,) = rows_of(folder / "text.csv")
    found = embed("texts", ["one text", "another"])
    np.testing.assert_allclose([float(row[f"features.{k}"]) for k in range(128)], found[0], atol=1e-5)
    (folder / "mine.rows.csv").write_text("a,b\n")
    for command, said in (
        (["run=vae", "input=photos", "out=mine.npy"], "mine.rows.csv: this command did not write"),
        (["run=vae", "input=photos", "splits=[test]"], "splits= has no effect on samples of yours"),
        (["run=vae", "input=photos", "data=digits"], "data= has no effect on samples of yours"),
        (["run=vae", "input=photos", "text=a"], "Give files, or one text"),
        (["run=vae", "out=new.txt"], "ends in .parquet, .npy or .csv"),
    ):
        assert main(["embed", *command]) == 1, command
        assert said in capsys.readouterr().err


def test_neighbours_of_pictures_have_a_page_and_of_texts_a_table(folder, capsys):
    assert main(["neighbours", "run=vae", "query=photos/cat/3.png", "input=photos", "k=4", "out=similar"]) == 0
    rows = rows_of(folder / "similar/neighbours.csv")
    names = [row["name"] for row in rows]
    assert len(names) == 4 and "photos/cat/3.png" not in names and names[0] in ("photos/cat/2.png", "photos/cat/4.png")
    page = (folder / "similar/index.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "http" not in page.replace("http-equiv", "")
    assert all(name in page for name in names) and "Most similar to photos/cat/3.png" in page
    assert main(["neighbours", "run=vae", "query=photos/cat", "k=30", "out=similar"]) == 0, (
        "its own files, its own data"
    )
    rows = rows_of(folder / "similar/neighbours.csv")
    assert len(rows) == 10 * 19 and {row["class"] for row in rows} == {"cat", "dog"}
    assert "10 queries x 19 neighbours among 20 samples: similar/index.html" in capsys.readouterr().out
    found = neighbours("vae", "photos/cat/3.png", [f"photos/cat/{k}.png" for k in range(10)], k=2)
    assert [row["name"] for row in found] == names[:2] and [row["rank"] for row in found] == [1, 2]
    capsys.readouterr()
    assert main(["neighbours", "run=texts", f"text={TEXTS[4]}", "input=pairs.csv", "k=3", "out=said"]) == 0
    assert TEXTS[4] in capsys.readouterr().out
    rows = rows_of(folder / "said/neighbours.csv")
    assert rows[0]["text"] in TEXTS[::2] and float(rows[0]["similarity"]) == pytest.approx(1, abs=1e-5)
    assert not (folder / "said/index.html").exists()
    assert main(["neighbours", "run=texts", f"text={TEXTS[4]}", "k=1", "out=said"]) == 0
    assert rows_of(folder / "said/neighbours.csv")[0]["text"].startswith("free prize"), "the tokens of its own data"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run=vae"], "but neither was given"),
        (["run=vae", "query=photos", "text=a"], "but both were given"),
        (["run=vae", "query=photos", "k=0"], "Set k to 1 or more"),
        (["run=vae", "query=gone.png"], "Cannot read query=gone.png: no such file or folder"),
        (["run=vae", "query=photos", "input=gone"], "Cannot read input=gone: no such file or folder"),
        (["run=vae", "query=photos", "input=photos", "data=digits"], "Give one of them"),
        (["run=vae", "query=photos/cat/1.png", "input=photos/cat/1.png"], "There is no sample but the query"),
        (["run=vae", "text=a"], "this run reads no texts"),
        (["run=vae", "query=photos", "out=held"], "this command did not write the file"),
    ],
)
def test_what_neighbours_refuses(folder, capsys, command, said):
    (folder / "held").mkdir(exist_ok=True)
    (folder / "held/index.html").write_text("<!doctype html><p>mine")
    assert main(["neighbours", *command]) == 1
    assert said in capsys.readouterr().err


def test_links_are_followed_and_loops_are_counted(folder):
    (folder / "linked").mkdir()
    (folder / "linked/cat").symlink_to(folder / "photos/cat")
    (folder / "linked/loop").symlink_to(folder / "linked")
    (folder / "linked/gone.png").symlink_to("nowhere.png")
    (folder / "linked/self.png").symlink_to("self.png")
    told = r"linked: 10 files, 3 left out: 2 dangling links \(gone.png, self.png\), 1 looping link \(loop\)"
    with pytest.warns(UserWarning, match=told):
        assert main(["embed", "run=vae", "input=linked", "out=linked.csv"]) == 0
    assert [row["path"] for row in rows_of(folder / "linked.csv")] == [f"linked/cat/{k}.png" for k in range(10)]


def test_a_folder_with_many_names_is_read_once(tmp_path):
    for k in range(12):  # each links to all others: paths without a loop are more than 12 factorial
        (tmp_path / f"{k:02d}").mkdir()
        (tmp_path / f"{k:02d}/{k}.png").touch()
        for other in range(12):
            (tmp_path / f"{k:02d}/to_{other:02d}").symlink_to(tmp_path / f"{other:02d}")
    left_out = {}
    assert sorted(path.name for path in walk_files(tmp_path, left_out)) == sorted(f"{k}.png" for k in range(12))
    assert set(left_out) == {"looping link", "folder already read by another name"}
    assert sum(map(len, left_out.values())) == 12 * 12


def test_names_of_data_that_are_no_utf8_or_look_like_formulas_are_written(folder):
    for name in ("=cmd", "dog"):
        shutil.copytree(folder / "photos/dog", folder / "odd" / name)
    try:
        os.rename("odd/dog/0.png", b"odd/dog/caf\xe9.png")
    except OSError:
        pytest.skip("the file system knows no such names")
    for out in ("odd.csv", "odd.npy", "odd.parquet"):
        assert main(["embed", "run=vae", "data=image_folder", "data.root=odd", "data.channels=1", f"out={out}"]) == 0
    rows = rows_of(folder / "odd.csv")
    assert {row["class"] for row in rows} == {"'=cmd", "dog"} and rows[-1]["path"] == "odd/dog/caf\\xe9.png"
    assert pq.read_table("odd.parquet")["class"][0].as_py() == "=cmd"
    assert main(["neighbours", "run=vae", "query=odd/dog", "input=odd", "out=odd_page"]) == 0
    assert "caf\\xe9.png" in (folder / "odd_page/index.html").read_text(encoding="utf-8")
