import gzip

import datasets
import pytest

from ssl_lab.data.files.tables import as_numbers
from ssl_lab.data.hub import load_splits
from ssl_lab.data.text.hub_text import HubText


def rows(tmp_path, name, content, **settings):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_splits(str(tmp_path / name), **settings)["train"].to_list()


@pytest.mark.parametrize("content", ["text,label\nhello, you,1\nbye,0\n", "text,label\na,1,5\nb,2,6\n"])
def test_rows_of_more_fields_than_the_header_are_refused(tmp_path, content):
    with pytest.raises(
        ValueError, match=r"more fields than the header \['text', 'label'\]. Put texts .* in double quotes"
    ):
        rows(tmp_path, "x.csv", content)


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_another_separator_is_named(tmp_path, sign):
    content = f"text{sign}label\nhello, you{sign}1\nbye{sign}0\n"
    with pytest.raises(ValueError, match="Cannot read .* as comma-separated: the header of train is"):
        rows(tmp_path, "x.csv", content)
    assert rows(tmp_path, "x.csv", content, options={"sep": sign}) == [
        {"text": "hello, you", "label": 1},
        {"text": "bye", "label": 0},
    ]


def test_a_header_that_reads_like_a_sample_is_pointed_out(tmp_path):
    content = "this is the first of three films,1\na bad film,0\na good film,1\n"
    with pytest.warns(UserWarning, match="is read as the names of the columns: 'this is the first.*header: null"):
        assert len(rows(tmp_path, "x.csv", content)) == 2
    named = rows(tmp_path, "x.csv", content, options={"names": ["text", "label"], "header": None})
    assert [row["label"] for row in named] == [1, 0, 1]


def test_tsv_has_quotes_if_its_header_has(tmp_path):
    assert rows(tmp_path, "a.tsv", '"text"\t"label"\n"a ""good""\tfilm"\t1\n') == [
        {"text": 'a "good"\tfilm', "label": 1}
    ]
    assert rows(tmp_path, "b.tsv", 'text\tlabel\nhe said "no\t1\n"yes"\t0\n') == [
        {"text": 'he said "no', "label": 1},
        {"text": '"yes"', "label": 0},
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", "hello\n"),
        ("x.csv", "text\nhello\n"),
        ("x.tsv", "text\tlabel\nhello\t1\n"),
        ("x.jsonl", '{"text": "hello"}\n'),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path, name, content):
    assert rows(tmp_path, name, b"\xef\xbb\xbf" + content.encode())[0]["text"] == "hello"


@pytest.mark.parametrize(("name", "head"), [("x.txt", ""), ("x.csv", "text\n")])
def test_other_encodings_are_named_and_can_be_set(tmp_path, name, head):
    content = f"{head}café\n".encode("latin-1")
    with pytest.raises(ValueError, match="Convert the files to UTF-8, or name their encoding: data.options="):
        rows(tmp_path, name, content)
    assert rows(tmp_path, name, content, options={"encoding": "latin-1"}) == [{"text": "café"}]


def test_blank_texts_of_tables_are_counted_and_blank_lines_are_not(tmp_path):
    (tmp_path / "x.csv").write_text("text\n" + 'a word\n" "\n' * 20)
    with pytest.warns(UserWarning, match="20 of 40 texts of train are blank and left out"):
        HubText(str(tmp_path / "x.csv"), vocab_size=60, val_fraction=0, test_fraction=0).columns("train")
    (tmp_path / "z.csv").write_text("text,label\n" + "a word,0\n ,1\nother,1\n" * 20)
    labelled = HubText(str(tmp_path / "z.csv"), label_column="label", vocab_size=60, val_fraction=0, test_fraction=0)
    with pytest.warns(UserWarning, match="20 of 60 texts of train are blank and left out"):
        assert labelled.columns("train")["label"].tolist() == [0, 1] * 20
    (tmp_path / "y.txt").write_text("a word\n\n" * 20)
    data = HubText(str(tmp_path / "y.txt"), sample_by="line", vocab_size=60, val_fraction=0, test_fraction=0)
    assert len(data.columns("train")["input_ids"]) == 20


def test_one_plain_file_without_blank_lines_is_read_by_line(tmp_path):
    (tmp_path / "x.txt").write_text("".join(f"line number {i}\n" for i in range(30)))
    data = HubText(str(tmp_path / "x.txt"), vocab_size=60)
    assert {split: data.text_counts(split).num_documents for split in data.splits} == {"train": 24, "test": 3, "val": 3}
    (tmp_path / "x.txt").write_text("".join(f"a paragraph\nof two lines\n\n{i}\n\n" for i in range(10)))
    assert (
        HubText(str(tmp_path / "x.txt"), vocab_size=60, val_fraction=0, test_fraction=0)
        .text_counts("train")
        .num_documents
        == 20
    )
    with pytest.raises(ValueError, match="Cannot cut a share of 0.1 from 1 training sample.*data.sample_by=line"):
        HubText(str(tmp_path / "x.txt"), sample_by="document", vocab_size=60).columns("train")


ROWS = [f"t{i},l{i % 2}" for i in range(8)]


def stray(**changed):
    """Rows of which some are changed."""
    return "text,label\n" + "".join(f"{changed.get(f'r{i}', row)}\n" for i, row in enumerate(ROWS))


@pytest.mark.filterwarnings("ignore:.*fewer fields")
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (stray(r1='"t1,l1', r5='t5",l1'), 3),
        (stray(r1='"t1 is,l1', r5='"t5" is,l1'), 3),
        (stray(r1='t1,"l1', r5='t5,l1"'), 3),
        (stray(r1='"t1,l1', r2='t2",l0'), 3),
        (stray(r6='"t6,l1'), 8),
        (stray(r1='"a ""good"" one\nof two lines",l1', r3='"t3,l1', r5='t5",l1'), 6),
        ('text\n"he said\nbye" no\nx\n', 2),
    ],
)
def test_stray_quotes_that_join_rows_are_refused(tmp_path, content, line):
    with pytest.raises(ValueError, match=f"a quote in line {line} .* joins [0-9] lines into one row.*quoting: 3"):
        rows(tmp_path, "x.csv", content)
    quoted_header = content.replace("text,label", '"text","label"').replace(",", "\t")
    if "\t" in quoted_header:
        with pytest.raises(ValueError, match=f"a quote in line {line} "):
            rows(tmp_path, "x.tsv", quoted_header)
    plain = rows(tmp_path, "x.csv", content, options={"quoting": 3})
    assert len(plain) == content.count("\n") - 1


def test_fields_of_several_lines_are_read_and_counted(tmp_path, capsys):
    content = 'text,label\n"a ""good"", long\nfilm, of\n\nfour lines",1\n"one, line",0\n5" disk,1\n"two\nlines",0\n'
    found = rows(tmp_path, "x.csv", content)
    assert [row["text"] for row in found] == [
        'a "good", long\nfilm, of\n\nfour lines',
        "one, line",
        '5" disk',
        "two\nlines",
    ]
    assert "2 of 4 rows span several lines (most: lines 2 to 5 of x.csv)" in capsys.readouterr().out
    assert len(rows(tmp_path, "y.csv", stray(r1='"t1,l1', r5='t5",l1'), options={"quoting": 0})) == 4, (
        "as the user says"
    )


def test_rows_of_fewer_fields_are_counted_and_a_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="2 rows of x.csv have fewer fields than the header .first: line 3 of x.csv"):
        assert len(rows(tmp_path, "x.csv", "text,label\na,1\na film\nof two lines,0\nb\n")) == 4
    with pytest.raises(ValueError, match="its header names 'text' twice"):
        rows(tmp_path, "y.csv", "text,label,text\na,1,b\n")


@pytest.mark.parametrize(("name", "head"), [("x.txt", ""), ("x.csv", "text,label\n"), ("x.csv.gz", "text,label\n")])
def test_nul_bytes_far_into_a_file_are_refused(tmp_path, name, head):
    content = (head + "a film,1\n" * 150_000 + "a\0film,1\n").encode()
    with pytest.raises(ValueError, match=f"line 150,00{2 if head else 1} has a NUL byte.*encoding: utf-16"):
        rows(tmp_path, name, gzip.compress(content, 1) if name.endswith(".gz") else content)


def test_utf_16_is_named_and_can_be_set(tmp_path):
    content = "text\ncafé\n".encode("utf-16")
    with pytest.raises(ValueError, match="line 1 has a NUL byte, so it is UTF-16"):
        rows(tmp_path, "x.csv", content)
    assert rows(tmp_path, "x.csv", content, options={"encoding": "utf-16"}) == [{"text": "café"}]


def test_texts_of_digits_stay_text(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "007,1\n08,0\n" * 8)
    data = HubText(str(tmp_path / "x.csv"), tokenizer_kind="characters", label_column="label", vocab_size=60)
    assert {text for texts in data.documents("train") for text in texts} == {"007", "08"}
    (tmp_path / "y.jsonl").write_text('{"text": 7}\n' * 9)
    with pytest.raises(ValueError, match="text_column='text' holds Value.*but a text is one string a row"):
        HubText(str(tmp_path / "y.jsonl"), text_column="text", vocab_size=60).columns("train")


def test_bytes_are_read_as_utf_8(tmp_path):
    table = {"text": ["café".encode()] * 9, "label": [b"a", b"b", b"a"] * 3}
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "x.parquet")
    data = HubText(str(tmp_path / "x.parquet"), text_column="text", label_column="label", vocab_size=60)
    assert data.class_names == ("a", "b") and next(data.documents("test")) == ["café"]
    datasets.Dataset.from_dict({"text": [b"\xff"]}).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(ValueError, match="Cannot read the column 'text' of train: it holds bytes that are not UTF-8"):
        HubText(str(tmp_path / "y.parquet"), vocab_size=60).columns("train")


@pytest.mark.parametrize(("name", "content"), [("x.csv", "text,label\n"), ("x.txt", b"\xef\xbb\xbf"), ("x.json", "[]")])
def test_a_file_without_rows_is_named(tmp_path, name, content):
    with pytest.raises(ValueError, match=f"Cannot use .*{name}.*: there is no row in it"):
        rows(tmp_path, name, content)


def test_a_number_with_underscores_is_no_score():
    with pytest.raises(ValueError, match="holds '1_0', but a score is a number"):
        as_numbers(["1", "1_0"], column="score")


def test_a_repeated_header_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line 4 repeats the header"):
        rows(tmp_path, "x.csv", "text,label\na,1\nb,0\ntext,label\nc,1\n")


def test_a_split_without_the_column_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "a,0\nb,1\n" * 5)
    (tmp_path / "test.csv").write_text("Text,label\nd,1\n")
    with pytest.raises(ValueError, match=r"'text' is a column of train, but test has \['Text', 'label'\]"):
        HubText(str(tmp_path), vocab_size=60).columns("test")


@pytest.mark.parametrize("options", [{"encoding": "no-such"}, {"escapechar": "ab"}])
def test_an_option_that_is_none_is_refused_by_the_reader(options, tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("text,label\na,1\n")
    with pytest.raises(ValueError, match=r"could not be read as csv: .* say how to read them in data\.options"):
        load_splits(str(file), options=options)


@pytest.mark.skipif(datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None, reason="the environment decides")
def test_no_bars_are_drawn_and_those_of_a_user_stay(tmp_path, capsys):
    datasets.enable_progress_bars()
    rows(tmp_path, "x.csv", "text,label\na,1\nb,2\n")
    assert "Generating" not in capsys.readouterr().err
    assert not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    rows(tmp_path, "y.csv", "text,label\na,1\nb,2\n")
    assert datasets.are_progress_bars_disabled()
