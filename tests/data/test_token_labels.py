import gzip
import json

import pytest
import torch

from ssl_lab.data.token_labels import NO_WORD, UNKNOWN_TAG, TokenLabels, cut, read_columns, split_words

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


def test_every_word_is_labelled_at_its_first_token(folder):
    data = TokenLabels(str(folder), vocab_size=60, val_fraction=0.2)
    columns = data.columns("train")
    starts = columns["token_labels"] != NO_WORD
    assert int(starts.sum()) == sum(len(words) for words, _ in data.sentences("train"))
    names = data.spec.class_names
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
    assert data.spec.class_names == ("B-X", "O")
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
