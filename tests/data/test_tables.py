import pytest

from ssl_lab.data.hub import load_splits
from ssl_lab.data.hub_text import HubText


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
