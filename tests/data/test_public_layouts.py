"""Public data sets as they lie on a disk after unpacking: each loads, or the message says how."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.picture_files import grey

from ssl_lab.data.hub import load_splits
from ssl_lab.data.hub_text import HubText
from ssl_lab.data.image_folder import ImageFolder
from ssl_lab.data.image_text_pairs import ImageTextPairs
from ssl_lab.data.labels import encode_labels
from ssl_lab.data.parallel_text import ParallelText
from ssl_lab.data.tag_schemes import to_iob2
from ssl_lab.data.text_files import read_lines
from ssl_lab.data.text_pairs import TextPairs
from ssl_lab.data.token_labels import TokenLabels, read_columns

CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\n\n"
BLANK = "\t_" * 6
CONLLU = f"# sent_id = 1\n1\tit\t_\tPRON{BLANK}\n2\tis\t_\tAUX{BLANK}\n"


def put(root, names, content):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


@pytest.mark.parametrize(
    "names",
    [
        ("eng.train", "eng.testa", "eng.testb"),
        ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
        ("train/a.v4_gold_conll", "development/a.v4_gold_conll", "test/a.v4_gold_conll"),
    ],
)
def test_column_files_of_shared_tasks(tmp_path, names):
    found = TokenLabels(put(tmp_path, names, CONLL))._sentences
    assert {split: [words for words, _ in rows] for split, rows in found.items()} == dict.fromkeys(
        ("train", "val", "test"), [["EU", "rejects"], ["Peter"]]
    )


def test_plain_text_beside_conllu_is_no_table_of_tags(tmp_path, capsys):
    put(tmp_path, ["en-ud-train.conllu", "en-ud-test.conllu"], CONLLU)
    put(tmp_path, ["en-ud-train.txt", "en-ud-test.txt"], "it is\nit was\n")
    assert TokenLabels(str(tmp_path))._sentences["train"] == [(["it", "is"], ["PRON", "AUX"])]
    assert "2 left out: 2 plain text of a file beside it (en-ud-test.txt, en-ud-train.txt)" in capsys.readouterr().out


def test_a_document_ends_a_sentence_and_is_no_word(tmp_path):
    put(tmp_path, ["a.txt"], "EU O\n-DOCSTART- O\n\nBen B\n#begin document (a); part 000\nAnn B\n#end document\n")
    assert [words for words, _ in read_columns(tmp_path / "a.txt")] == [["EU"], ["Ben"], ["Ann"]]


@pytest.mark.parametrize("comment", ["#\thttp://a [2014]", "# id 5239 domain=en"])  # GermEval 2014, MultiCoNER
def test_a_comment_before_each_sentence_is_no_word(tmp_path, comment):
    put(tmp_path, ["a.txt"], f"{comment}\n1\tBonn\t_\tB-LOC\n\n{comment}\n1\tja\t_\tO\n\n")
    assert read_columns(tmp_path / "a.txt", word=1, tag=3) == [(["Bonn"], ["B-LOC"]), (["ja"], ["O"])]


def test_columns_after_the_named_ones_may_vary(tmp_path):
    put(tmp_path, ["a.txt"], "x 0 In (GPE) - *\n\nx 0 it * - * * *\n")
    assert read_columns(tmp_path / "a.txt", word=2, tag=3) == [(["In"], ["(GPE)"]), (["it"], ["*"])]


def test_brackets_of_conll_2012_are_spans():
    assert to_iob2([["(PERSON*", "*", "*)", "*", "(GPE)"]]) == [["B-PERSON", "I-PERSON", "I-PERSON", "O", "B-GPE"]]
    assert to_iob2([["(", "NN", ")"]]) == [["(", "NN", ")"]]


def test_a_conllu_column_of_nothing_is_no_class(tmp_path):
    put(tmp_path, ["a.conllu"], CONLLU.replace("PRON", "_").replace("AUX", "_"))
    with pytest.raises(ValueError, match="Column 3 of .* says _ for all words.*data.tag_position"):
        read_columns(tmp_path / "a.conllu")


def test_tags_that_train_lacks_are_told(tmp_path, capsys):
    put(tmp_path, ["train.txt"], "a O\nb B-X\n\n" * 9)
    put(tmp_path, ["test.txt"], "a O\nb B-Y\n\n")
    assert TokenLabels(str(tmp_path)).class_names == ("B-X", "O")
    assert "1 of 2 tags of test, such as B-Y, are not in train" in capsys.readouterr().out


def test_files_of_any_ending_can_be_named_one_by_one_or_by_a_pattern(tmp_path):
    put(tmp_path, ["wiki.train.tokens", "wiki.test.tokens"], "a b\n")
    assert set(load_splits(str(tmp_path))) == {"train", "test"}
    put(tmp_path, ["news-train/space/1", "news-train/art/2", "news-test/art/3"], "a b\n")
    with pytest.raises(ValueError, match=r'3 without ending.*name files of any ending: .data.path=\{train: "DIR/\*'):
        load_splits(put(tmp_path / "n", ["train/1", "train/2", "test/3"], "a b\n"))
    found = load_splits({split: str(tmp_path / f"news-{split}" / "*" / "*") for split in ("train", "test")})
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "test": 1}
    put(tmp_path, ["enwik8"], "a b\n")
    assert len(load_splits(str(tmp_path / "enwik8"))["train"]) == 1


def test_test_sets_of_machine_translation_are_not_trained_on(tmp_path):
    stems = ("train", "newstest2014", "newsdev2016")
    put(tmp_path, [f"{stem}.{language}" for stem in stems for language in ("en", "de")], "a\n")
    pairs = ParallelText(str(tmp_path), "en", "de")._pairs
    assert sorted(pairs) == ["test", "train", "val"]


def test_a_file_beside_train_is_no_training_data(tmp_path):
    with pytest.raises(ValueError, match="train.csv is named after splits, but sample_submission.csv is not"):
        load_splits(put(tmp_path, ["train.csv", "sample_submission.csv"], "text,label\na,1\n"))


def test_pointers_of_git_lfs_are_no_text(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(ValueError, match="1 not yet fetched by git lfs pull"):
        load_splits(put(tmp_path, ["train.txt"], pointer))


def test_utf_16_and_old_line_ends(tmp_path):
    for name, content in {"a": "x\ny\n".encode("utf-16"), "b": b"x\ry\r", "c": b"x\r\ny\r\n"}.items():
        put(tmp_path, [name], content)
        assert read_lines(tmp_path / name) == ["x", "y"]
    for name in ("train.txt", "train.csv"):
        put(tmp_path / name, [name], "text,label\na,1\n".encode("utf-16-le"))
        with pytest.raises(ValueError, match="line 1 has a NUL byte. If it is UTF-16, convert it"):
            load_splits(str(tmp_path / name))


def test_text_is_found_by_name_and_never_the_label(tmp_path):
    pq.write_table(pa.table({"review": pa.array(["a", "b"] * 9), "label": ["x", "y"] * 9}), tmp_path / "train.parquet")
    module = HubText(str(tmp_path), label_column="label")
    assert module._texts.read("train", [0, 1]) == ["a", "b"]
    view = pa.array(["a", "b"] * 9, pa.string_view())
    pq.write_table(pa.table({"text": view, "label": ["x", "y"] * 9}), tmp_path / "train.parquet")
    assert HubText(str(tmp_path))._texts.read("train", [0, 1]) == ["a", "b"]


@pytest.mark.parametrize("value", [1, ["a"], 0.5, True])
def test_what_is_no_text_is_refused_in_every_split(tmp_path, value):
    names = {"text": "a", "sentence1": "a", "sentence2": "a", "en": "a", "de": "a", "image": "a.png", "caption": "a"}
    put(tmp_path, ["train.jsonl"], json.dumps(names) + "\n")
    put(tmp_path, ["test.jsonl"], json.dumps({name: [[value]] for name in names}) + "\n")
    modules = (
        HubText(str(tmp_path), text_column="text"),
        TextPairs(str(tmp_path)),
        ParallelText(str(tmp_path), "en", "de"),
        ImageTextPairs(str(tmp_path)),
    )
    for module in modules:
        with pytest.raises(ValueError, match=r"_column=|source=.* in test, but needs a text"):
            module.columns("train")


def test_columns_that_a_split_lacks_are_named_with_it(tmp_path):
    put(tmp_path, ["train.csv"], "sentence1,sentence2,text\na,b,c\n")
    put(tmp_path, ["test.csv"], "sentence1,other\na,b\n")
    for module in (TextPairs(str(tmp_path)), HubText(str(tmp_path), text_column="text")):
        with pytest.raises(ValueError, match=r"is no column of the test split, which has \['sentence1', 'other'\]"):
            module.columns("train")


@pytest.mark.parametrize("header", ["0,bad film", "gj04,0,film"])
def test_a_header_of_numbers_may_be_a_sample(tmp_path, header):
    names = ["text", "label", "column_2"][: header.count(",") + 1]
    with pytest.warns(UserWarning, match=rf"names: \[{', '.join(names)}\], header: null"):
        load_splits(put(tmp_path, ["train.csv"], f"{header}\n" * 3))


def test_fewer_names_than_columns_are_refused(tmp_path):
    put(tmp_path, ["train.tsv"], "gj04\t1\t\tOur friends.\n" * 3)
    with pytest.raises(ValueError, match="rows have more fields than the header.*name all fields"):
        load_splits(str(tmp_path), options={"names": ["text", "label"], "header": None})


def test_a_name_that_comes_twice_is_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match="has 'label' twice. The first is read as 'label', the next as 'label.1'"):
        load_splits(put(tmp_path, ["train.csv"], "text,label,label\na,1,2\n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "text,label\n", "there are no rows. Fill the files, or remove them"),
        ("train.csv", 'text,label\n"a,1\nb,2\n', r"set data.options=\{quoting: 3\}"),
        ("train.csv", b"PK\x03\x04" + b"x" * 99, "could not be read as csv"),
        ("text8.zip", b"PK\x03\x04" + b"x" * 99, "it is packed. Unpack it"),
    ],
)
def test_files_that_cannot_be_read_say_the_cure(tmp_path, name, content, message):
    put(tmp_path, [name], content)
    with pytest.raises(ValueError, match=message):
        load_splits(str(tmp_path / name))


def test_what_datasets_saves_to_disk_is_read(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a", "b"]})}).save_to_disk(str(tmp_path))
    assert load_splits(str(tmp_path))["train"]["text"] == ["a", "b"]


@pytest.mark.parametrize("classes", [("images", "masks"), ("cat", "dog")])
def test_folders_of_equal_sub_folders_may_be_no_classes(tmp_path, classes, capsys):
    for name in (f"{top}/{sub}/{k}.png" for top in classes for sub in ("001.Crow", "002.Gull") for k in range(2)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        grey(9).save(tmp_path / name)
    with pytest.warns(UserWarning, match="If those are the classes, point data.root at one of the former"):
        assert len(ImageFolder(str(tmp_path))._classes["train"]) == 8
    assert f"2 classes ({', '.join(classes)})" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("Pos", "pos"), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_look_alike_are_pointed_out(names):
    rows = datasets.Dataset.from_dict({"label": [*names, "neg"]})
    with pytest.warns(UserWarning, match="differ in capitals or the coding of accents alone"):
        assert len(encode_labels({"train": rows}, "label")[1]) == 3


def test_one_class_is_told_and_splits_may_differ_in_type(capsys):
    train, test = datasets.Dataset.from_dict({"y": [1.0, 2.0]}), datasets.Dataset.from_dict({"y": ["2", "1"]})
    labels, names = encode_labels({"train": train, "test": test}, "y")
    assert names == ("1", "2") and labels["test"].tolist() == [1, 0]
    encode_labels({"train": datasets.Dataset.from_dict({"y": ["spam", "spam"]})}, "y")
    assert "All labels of train in 'y' are 'spam': every accuracy is 1." in capsys.readouterr().out
