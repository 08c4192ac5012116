import gzip
import json

import pytest
import torch

from ssl_lab.data.text.parallel_text import ParallelText

EN = [f"A dog number {k}." for k in range(20)]
DE = [f"Ein größer Hund, Nummer {k}: 'gut'!" for k in range(20)]


@pytest.fixture
def folder(tmp_path):
    for split, stop in (("train", 20), ("val", 4)):
        (tmp_path / f"{split}.en").write_text("\n".join(EN[:stop]) + "\n")
        with gzip.open(tmp_path / f"{split}.de.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(DE[:stop]) + "\n")
    return tmp_path


def test_lines_stay_together_and_translations_are_decoded_to_what_they_were(folder):
    data = ParallelText(str(folder), "en", "de", vocab_size=200, target_vocab_size=400)
    assert sum(len(data.references(split)) for split in ("train", "test")) == 20
    assert data.references("val") == DE[:4]
    columns = data.columns("val")
    assert data.target_tokenizer.batch_decode(columns["target_input_ids"], skip_special_tokens=True) == DE[:4]
    assert data.tokenizer.decode(columns["input_ids"][1], skip_special_tokens=True) == "a dog number 1."
    written = data.spec.targets["target_input_ids"]
    pad, begin, end = written.pad_id, written.begin_id, written.end_id
    assert (columns["target_input_ids"][:, 0] == begin).all()
    assert ((columns["target_input_ids"] == end).sum(1) == 1).all()
    batch = next(iter(data.eval_dataloader("val")))
    assert torch.equal(batch["target_attention_mask"] == 1, batch["target_input_ids"] != pad)
    assert torch.equal(batch["attention_mask"] == 1, batch["input_ids"] != data.tokenizer.pad_token_id)


def test_the_same_text_gives_the_same_target_ids(folder):
    vocab = [
        ParallelText(str(folder), "en", "de", vocab_size=200, target_vocab_size=400).target_tokenizer.get_vocab()
        for _ in range(2)
    ]
    assert vocab[0] == vocab[1]


def test_named_files_tables_and_a_shared_tokenizer(folder, tmp_path):
    named = ParallelText({"train": f"{folder}/train", "test": f"{folder}/val"}, "en", "de", vocab_size=200)
    assert named.references("test") == DE[:4]
    named.tokenizer.save_pretrained(tmp_path / "tok")
    shared = ParallelText(
        str(folder), "en", "de", tokenizer=str(tmp_path / "tok"), target_tokenizer=str(tmp_path / "tok")
    )
    written = shared.spec.targets["target_input_ids"]
    ends = (named.tokenizer.cls_token_id, named.tokenizer.sep_token_id)
    assert (written.pad_id, written.begin_id, written.end_id) == (0, *ends)
    rows = [{"translation": {"en": a, "de": b}} for a, b in zip(EN, DE, strict=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = ParallelText(str(tmp_path / "x.jsonl"), "en", "de", vocab_size=200)
    assert set(table.references("test")) < set(DE)


@pytest.mark.parametrize("begin", ["[CLS]", "[SEP]"])
def test_the_end_is_a_target_where_padding_is_the_end_token(folder, tmp_path, begin):
    tokenizer = ParallelText(str(folder), "en", "de", vocab_size=200, target_vocab_size=400).target_tokenizer
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = begin, "[SEP]", "[SEP]"
    tokenizer.save_pretrained(tmp_path / "tok")
    data = ParallelText(str(folder), "en", "de", vocab_size=200, target_tokenizer=str(tmp_path / "tok"))
    batch = next(iter(data.eval_dataloader("val")))
    ids, mask = batch["target_input_ids"], batch["target_attention_mask"]
    for row, real, text in zip(ids, mask, DE[:4], strict=True):
        length = 2 + len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert real.tolist() == [1] * length + [0] * (len(row) - length)
        assert row[length - 1] == tokenizer.eos_token_id


def test_files_that_do_not_fit(folder):
    (folder / "train.en").write_text("one line\n")
    with pytest.raises(ValueError, match="has 1 lines but .* 20"):
        ParallelText(str(folder), "en", "de").columns("train")
    with pytest.raises(FileNotFoundError, match=r"Neither .*train\.fr nor train\.fr\.gz is there"):
        ParallelText(str(folder), "en", "fr").columns("train")
    (folder / "test_2016.en").write_text("")
    with pytest.raises(ValueError, match=r"test_2016\.en is named after test, but test has no file that can be used"):
        ParallelText(str(folder), "en", "de").columns("val")


def test_all_files_of_a_split_are_read_and_none_stands_alone(folder):
    for year in (2016, 2017):
        for language, lines in (("en", EN), ("de", DE)):
            (folder / f"test_{year}.{language}").write_text("\n".join(lines[:2]) + "\n")
    data = ParallelText(str(folder), "en", "de", vocab_size=200, target_vocab_size=400)
    assert data.references("test") == DE[:2] * 2
    (folder / "val_2.de").write_text("Ein Satz.\n")
    with pytest.raises(FileNotFoundError, match=r"Neither .*val_2\.en nor val_2\.en\.gz is there"):
        ParallelText(str(folder), "en", "de").references("val")


def test_folders_for_each_split_and_a_corpus_without_split_names(tmp_path):
    for name, rows in (("train/a", EN), ("test/b", EN[:3])):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.en").write_text("\n".join(rows))
        (tmp_path / f"{name}.de").write_text("\n".join(DE[: len(rows)]))
    assert ParallelText(str(tmp_path), "en", "de").references("test") == DE[:3]
    alone = ParallelText(str(tmp_path / "train"), "en", "de")
    assert sorted(sum((alone.references(split) for split in ("train", "val", "test")), [])) == sorted(DE)
    path = {"train": f"{tmp_path}/train/a", "test": f"{tmp_path}/train/a"}
    with pytest.raises(ValueError, match=r"Cannot use data\.path: .*a\.en in train and .*a\.en in test are one file"):
        ParallelText(path, "en", "de").references("test")


def test_pairs_with_a_blank_side_are_left_out_and_counted(tmp_path):
    (tmp_path / "train.en").write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in EN).encode())
    (tmp_path / "train.de").write_text("".join(f"{line}\n" if k != 3 else " \n" for k, line in enumerate(DE)))
    data = ParallelText(str(tmp_path), "en", "de", vocab_size=200, val_fraction=0, test_fraction=0)
    with pytest.warns(UserWarning, match="1 of 20 pairs of train are left out: en or de is blank"):
        assert data.references("train") == [*DE[:3], *DE[4:]]
    first = data.columns("train")["input_ids"][0]
    assert data.tokenizer.decode(first, skip_special_tokens=True) == "a dog number 0."


def test_lines_end_where_wc_ends_them(tmp_path):
    """A stray carriage return inside a line would shift all that follows."""
    (tmp_path / "train.en").write_bytes(b"one\rtwo\n" + b"three\n" * 9)
    (tmp_path / "train.de").write_bytes(b"eins zwei\n" + b"drei\n" * 9)
    data = ParallelText(str(tmp_path), "en", "de", vocab_size=200, val_fraction=0, test_fraction=0)
    assert data.references("train") == ["eins zwei", *["drei"] * 9]


def test_languages_that_the_translations_lack(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"translation": {"en": "a", "fr": "b"}}) + "\n")
    with pytest.raises(ValueError, match="translations are in en, fr, not in de. Set data.source and data.target"):
        ParallelText(str(tmp_path), "en", "de", vocab_size=200).columns("train")
