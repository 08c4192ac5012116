import csv
import json
import re

import pytest
import torch
import yaml

from ssl_lab.cli.paths import config_dir
from ssl_lab.data.hub import title_of
from ssl_lab.data.text.text_pairs import TextPairs
from ssl_lab.data.text.tokenizer import train_tokenizer
from ssl_lab.tasks.similarity import join_texts

ROWS = [(f"a dog runs number {i}", f"the dog is running {i}", f"no cat sleeps {i}", i % 6) for i in range(20)]
HEAD = ("sentence1", "sentence2", "negative", "score")
SPLITS = ("train", "val", "test")


@pytest.fixture
def file(tmp_path):
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEAD, *ROWS])
    return str(tmp_path / "pairs.csv")


def texts(data, split, name="input_ids"):
    return [data.tokenizer.decode(row, skip_special_tokens=True) for row in data.columns(split)[name]]


def test_a_row_stays_together_through_splits_and_batches(file):
    data = TextPairs(file, negative_column="negative", score_column="score", vocab_size=200, batch_size=4)
    found = []
    for split in SPLITS:
        seconds, negatives = texts(data, split, "second_input_ids"), texts(data, split, "negative_input_ids")
        found += zip(texts(data, split), seconds, negatives, data.columns(split)["score"].tolist(), strict=True)
    assert sorted(found) == sorted(ROWS)
    batch = next(iter(data.train_dataloader()))
    for kind in ("", "second_", "negative_"):
        ids, mask = batch[f"{kind}input_ids"], batch[f"{kind}attention_mask"]
        assert ids.dtype == mask.dtype == torch.int64
        assert torch.equal(mask == 1, ids != data.spec.pad_id)
    assert batch["score"].dtype == torch.float32
    assert not data.labelled


def test_without_scores_and_negatives(file):
    data = TextPairs(file, vocab_size=200, max_length=6)
    batch = next(iter(data.eval_dataloader("val")))
    assert set(batch) == {"input_ids", "attention_mask", "second_input_ids", "second_attention_mask", "index"}
    assert batch["second_input_ids"].shape == (2, 6), "truncated, not cut into blocks"
    assert data.spec.shape == (6,)


def test_the_tokenizer_has_read_both_columns(file):
    vocab = TextPairs(file, vocab_size=400, val_fraction=0, test_fraction=0).tokenizer.get_vocab()
    assert {"runs", "running"} <= set(vocab) and "sleeps" not in vocab


def test_pretraining_on_similar_pairs_alone(file):
    data = TextPairs(file, score_column="score", positive_score=4, vocab_size=200)
    assert data.columns("pretrain")["score"].min() == 4
    assert data.columns("train")["score"].min() == 0
    kept = [score for score in data.columns("train")["score"].tolist() if score >= 4]
    assert data.columns("pretrain")["score"].tolist() == kept
    with pytest.raises(ValueError, match=r"highest score of 16 training pairs is 5\.0\. Lower data\.positive_score"):
        TextPairs(file, score_column="score", positive_score=6).columns("pretrain")
    with pytest.raises(ValueError, match=r"no scores\. Set data\.score_column"):
        TextPairs(file, positive_score=4)


def test_pairs_with_a_blank_text_or_no_score_are_left_out_and_counted(tmp_path):
    rows = [
        {"a": "one text", "b": "another", "s": 0.5},
        {"a": "a second text", "b": None, "s": 0.1},
        {"a": "a third text", "b": "its pair", "s": None},
        {"a": "  ", "b": "its pair", "s": None},
    ] * 4
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = dict(first_column="a", second_column="b", vocab_size=100, val_fraction=0, test_fraction=0)
    data = TextPairs(str(tmp_path / "x.jsonl"), score_column="s", **options)
    with pytest.warns(UserWarning, match="12 of 16 pairs of train are left out: 8 have a blank text, 4 have no score"):
        assert data.columns("train")["score"].tolist() == [0.5] * 4
    with pytest.warns(UserWarning, match="8 of 16 pairs of train are left out: 8 have a blank text"):
        found = texts(TextPairs(str(tmp_path / "x.jsonl"), **options), "train", "second_input_ids")
    assert found == ["another", "its pair"] * 4


@pytest.mark.parametrize("withheld", ["", "-1"])
def test_a_split_whose_scores_are_withheld_counts_as_lacking(tmp_path, withheld):
    head = "sentence1,sentence2,score\n"
    (tmp_path / "train.csv").write_text(head + "".join(f"a {i},b {i},{i % 5}.5\n" for i in range(40)))
    (tmp_path / "test.csv").write_text(head + "".join(f"c {i},d {i},{withheld}\n" for i in range(9)))
    data = TextPairs(str(tmp_path), score_column="score", vocab_size=100)
    with pytest.warns(UserWarning, match="The test split has no labels but the train split has"):
        assert len(data.columns("test")["score"]) == 4
    assert data.columns("test")["score"].min() >= 0.5


def test_minus_one_among_other_scores_is_a_score(tmp_path):
    rows = "".join(f"a {i},b {i},{i % 3 - 1}\n" for i in range(30))
    (tmp_path / "train.csv").write_text("sentence1,sentence2,score\n" + rows)
    data = TextPairs(str(tmp_path), score_column="score", vocab_size=100)
    assert set(data.columns("train")["score"].tolist()) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("cell", ["high", "inf", "1e+99"])
def test_a_score_is_a_finite_number(tmp_path, cell):
    (tmp_path / "train.csv").write_text(f"sentence1,sentence2,score\na,b,1\nc,d,{cell}\n")
    with pytest.raises(ValueError, match=re.escape(cell)):
        TextPairs(str(tmp_path), score_column="score", vocab_size=100).columns("train")


def test_columns_that_do_not_fit(file):
    for setting in ("first_column", "second_column", "negative_column", "score_column"):
        with pytest.raises(ValueError, match=rf"{setting}='x' is not a column.*'sentence1'"):
            TextPairs(file, **{setting: "x"}).columns("train")
    with pytest.raises(ValueError, match="score_column='negative' holds 'no cat.*a score is a number"):
        TextPairs(file, score_column="negative").columns("train")


def test_the_official_files_of_sts_b_are_read_as_they_are(tmp_path):
    """Tab-separated in spite of the name, with a quote that never closes and further fields on some rows."""
    rows = [
        'main\tMSR\t2012\t1\t5.000\tA "plane.\tAn air plane.',
        "main\tMSR\t2012\t4\t3.8\tA man.\tOne man.\turl\turl",
    ]
    for split in ("train", "dev", "test"):
        (tmp_path / f"sts-{split}.csv").write_text("".join(f"{row}\n" for row in rows * 3))
    (tmp_path / "LICENSE.txt").write_text("see there")
    settings = yaml.safe_load((config_dir() / "data" / "sts_b.yaml").read_text())
    data = TextPairs(
        **{name: value for name, value in settings.items() if name != "_target_"} | {"path": str(tmp_path)}
    )
    for split in SPLITS:
        assert texts(data, split) == ['a " plane.', "a man."] * 3
        assert data.columns(split)["score"].tolist() == pytest.approx([5.0, 3.8] * 3)


def test_a_causal_tokenizer_puts_a_separator_between_two_texts(tmp_path):
    texts = [["a dog runs", "it is a dog"]]
    rows = "".join(f"a dog runs,it is a dog,{k % 5}\n" for k in range(20))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + rows)
    tokenizer = train_tokenizer("bpe", lambda: texts, vocab_size=300, framing="causal")
    tokenizer.save_pretrained(tmp_path / "ours")
    tokenizer.cls_token = None
    tokenizer.save_pretrained(tmp_path / "published")
    ids = tokenizer(texts[0])["input_ids"]
    cls, sep, eos = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", tokenizer.eos_token])
    for name, before, after in (("ours", [cls], sep), ("published", [], eos)):
        data = TextPairs(
            str(tmp_path / "pairs.csv"), score_column="score", tokenizer=str(tmp_path / name), max_length=16
        )
        joined = join_texts(next(iter(data.eval_dataloader("train"))), data.spec)
        row = joined["input_ids"][0][joined["attention_mask"][0] == 1].tolist()
        assert row == [*before, *ids[0], after, *ids[1], after]
        pair = data.tokenizer(*texts[0])
        assert pair["input_ids"] == row, "as questions and texts are"
        data.tokenizer.save_pretrained(tmp_path / "again")
        again = TextPairs(str(tmp_path / "pairs.csv"), tokenizer=str(tmp_path / "again"), max_length=16).tokenizer
        assert again(*texts[0])["input_ids"] == row, "once, in a run that is judged again too"


def test_data_are_called_by_their_path():
    assert title_of("sets/STS-B") == "STS-B" and title_of("sets/pairs.csv") == "pairs.csv"
    assert title_of({"train": "sets/STS-B/sts-train.csv", "test": "sets/STS-B/sts-test.csv"}) == "STS-B"
