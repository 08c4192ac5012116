import gzip
import json

import pytest
import torch

from ssl_lab.data.text.token_labels import NO_WORD, UNKNOWN_TAG, TokenLabels, cut, read_columns, split_words

TEXT = """-DOCSTART- -X- O

The DT B-NP
small JJ I-NP
dog NN I-NP
runs VBZ B-VP

It PRP B-NP
sleeps VBZ B-VP

"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT * 5)
    with gzip.open(tmp_path / "test.txt.gz", "wt") as file:
        file.write("A DT B-NP\nwolf NN B-ANIMAL\n")
    return tmp_path


def test_column_files(folder):
    sentences = read_columns(folder / "train.txt", word=0, tag=-1)
    assert len(sentences) == 10
    assert sentences[0] == (["The", "small", "dog", "runs"], ["B-NP", "I-NP", "I-NP", "B-VP"])
    assert read_columns(folder / "train.txt", word=0, tag=1)[1][1] == ["PRP", "VBZ"]


def test_comments_are_those_of_conllu_alone(tmp_path):
    text = "# 12 O\nlines CD B\n\n#no NN O\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.conllu").write_text("# text = It\n#x\nIt PRP\n# SYM\n")
    assert [words for words, _ in read_columns(tmp_path / "a.txt", word=0, tag=-1)] == [["#", "lines"], ["#no"]]
    assert read_columns(tmp_path / "b.conllu", word=0, tag=-1) == [(["It", "#"], ["PRP", "SYM"])]


@pytest.mark.parametrize("name", ["x.conllu", "x.conll", "x.txt"])
def test_conllu_words_are_forms_without_ranges_and_empty_nodes(tmp_path, name):
    lines = (
        "1\tI\tI\tPRON",
        "2-3\tdon't\t_\t_",
        "2\tdo\tdo\tAUX",
        "3\tn't\tnot\tPART",
        "4\tNew York\t_\tPROPN",
        "4.1\tgo\t_\tVERB",
    )
    (tmp_path / name).write_text("# sent_id = 1\n" + "".join(line + "\t_" * 6 + "\n" for line in lines) + "\n")
    assert read_columns(tmp_path / name) == [(["I", "do", "n't", "New York"], ["PRON", "AUX", "PART", "PROPN"])]
    assert read_columns(tmp_path / name, tag=2)[0][1] == ["I", "do", "not", "_"]


def test_ranges_are_words_in_files_that_are_not_conllu(tmp_path):
    (tmp_path / "x.txt").write_text("2-3 B-SCORE\n4.1 O\n")
    assert read_columns(tmp_path / "x.txt") == [(["2-3", "4.1"], ["B-SCORE", "O"])]


def test_a_byte_order_mark_and_hard_spaces_are_no_words_and_no_columns(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfAnna B-PER\r\n10\xc2\xa0000 O\r\n\r\nBen B-PER\r\n")
    assert read_columns(tmp_path / "x.txt") == [(["Anna", "10\u00a0000"], ["B-PER", "O"]), (["Ben"], ["B-PER"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a DT O\nb NN\n", "Line 2 of .* has 2 columns .* the first word has 3"),
        (b"a\tO\nb\t\n", "Line 2 of .* has the word 'b' with the tag ''. Give every word a tag"),
        (b"a\tO\n\tO\n", "Line 2 of .* has the word None"),
        (b"caf\xe9 O\n", "as UTF-8: line 1 has the byte 0xe9. Convert the file"),
    ],
)
def test_column_files_with_a_fault_are_refused_by_line(tmp_path, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_columns(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "Row 1 of train has the word None with the tag 'O'"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "Row 1 of train has the word 'b' with the tag None"),
        ({"tokens": ["a"], "tags": None}, "Row 1 of train has 1 words but 0 tags"),
    ],
)
def test_rows_of_tables_have_a_tag_for_every_word(tmp_path, row, message):
    rows = [{"tokens": ["x"], "tags": ["O"]}, row]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(ValueError, match=message):
        TokenLabels(str(tmp_path), vocab_size=60).columns("train")


def test_tags_of_tables_that_are_ignored_or_without_names(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"tokens": ["a", "b"], "tags": [0, -100]}\n' * 10)
    with pytest.raises(ValueError, match="Row 0 of train has the word 'b' with the tag -100"):
        TokenLabels(str(tmp_path), vocab_size=60).columns("train")
    (tmp_path / "train.jsonl").write_text('{"tokens": ["a", "b"], "tags": [0, 1]}\n' * 10)
    with pytest.warns(UserWarning, match="are numbers without names: only the accuracy of tags can be scored"):
        TokenLabels(str(tmp_path), vocab_size=60).columns("train")
    (tmp_path / "train.jsonl").write_text('{"tokens": "ab", "tags": ["x", "y"]}\n' * 10)
    with pytest.raises(ValueError, match="words_column='tokens' holds .* but needs a list a row"):
        TokenLabels(str(tmp_path), vocab_size=60).columns("train")


def test_every_word_is_labelled_at_its_first_token(folder):
    data = TokenLabels(str(folder), vocab_size=60, val_fraction=0.2)
    columns = data.columns("train")
    starts = columns["token_labels"] != NO_WORD
    assert int(starts.sum()) == sum(len(words) for words, _ in data.sentences("train"))
    names = data.class_names
    assert names == ("B-NP", "B-VP", "I-NP")
    for row, (words, tags) in enumerate(data.sentences("train")):
        ids, labels = columns["input_ids"][row], columns["token_labels"][row]
        assert data.tokenizer.decode(ids, skip_special_tokens=True) == " ".join(words).lower()
        assert [names[k] for k in labels[labels != NO_WORD].tolist()] == tags
        first = ids[labels != NO_WORD].tolist()
        assert not any(token.startswith("##") for token in data.tokenizer.convert_ids_to_tokens(first))
    test = data.columns("test")["token_labels"][0]
    assert test[test != NO_WORD].tolist() == [0, UNKNOWN_TAG], "train has no such tag"


def test_long_sentences_are_cut_between_words(folder):
    data = TokenLabels(str(folder), vocab_size=60, max_length=5)
    columns = data.columns("train")
    assert len(columns["input_ids"]) > len(data.sentences("train"))
    assert int((columns["token_labels"] != NO_WORD).sum()) == sum(len(w) for w, _ in data.sentences("train"))
    assert (columns["input_ids"][:, 0] == data.tokenizer.cls_token_id).all()
    batch = next(iter(data.eval_dataloader("train")))
    assert batch["token_labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("lengths", "ranges"),
    [([1, 1, 1], [(0, 3)]), ([2, 2, 2], [(0, 1), (1, 2), (2, 3)]), ([9, 1, 2], [(0, 1), (1, 3)]), ([], [])],
)
def test_cuts(lengths, ranges):
    assert cut(lengths, 3) == ranges


def test_a_word_of_no_token_is_unknown(folder):
    tokenizer = TokenLabels(str(folder), vocab_size=120).tokenizer
    (pieces,) = split_words(tokenizer, [["dog", "\u200b", "runs"]])
    assert pieces[1] == [tokenizer.unk_token_id]
    assert tokenizer.decode(pieces[2]).replace(" ", "").replace("##", "") == "runs"


def test_tables_with_lists(tmp_path):
    rows = [{"words": ["a", "dog"], "ner": ["O", "B-X"]}, {"words": ["no"], "ner": ["O"]}] * 5
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"words_column": "words", "tags_column": "ner", "vocab_size": 60}
    data = TokenLabels(str(tmp_path), **settings)
    assert data.class_names == ("B-X", "O")
    assert sum(len(data.sentences(split)) for split in ("train", "val", "test")) == 10
    (tmp_path / "train.jsonl").write_text(json.dumps({"words": ["a", "b"], "ner": ["O"]}) + "\n")
    with pytest.raises(ValueError, match="Row 0 of train has 2 words but 1 tags"):
        TokenLabels(str(tmp_path), **settings).columns("train")


def test_files_that_do_not_fit(tmp_path):
    (tmp_path / "train.txt").write_text("The DT B-NP\ndog\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*train\.txt has 1 columns"):
        TokenLabels(str(tmp_path)).columns("train")
    with pytest.raises(ValueError, match="Line 1 of .* has 3 columns"):
        TokenLabels(str(tmp_path), tag_position=3).columns("train")
