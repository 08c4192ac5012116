import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pydoc_data.topics import topics

import datasets
import huggingface_hub
import pytest
import torch
from torch import nn

from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.python_docs import PythonDocs, distinct_topics
from ssl_lab.data.text.tokenizer import train_wordpiece
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.modalities.text import TextSpec

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def docs():
    return PythonDocs(max_length=64)


def blocks(data, split):
    """Token ids of the blocks of a split, without special tokens."""
    special = set(data.spec.special_ids) - {data.tokenizer.unk_token_id}
    return [tuple(i for i in row if i not in special) for row in data.columns(split)["input_ids"].tolist()]


def test_a_topic_lies_wholly_in_one_split_and_no_token_is_lost(docs):
    found = {split: Counter(blocks(docs, split)) for split in SPLITS}
    num_topics = Counter()
    for ids in docs.tokenizer(list(distinct_topics().values()), add_special_tokens=False)["input_ids"]:
        expected = Counter(tuple(ids[start : start + 62]) for start in range(0, len(ids), 62))
        homes = [split for split in SPLITS if expected <= found[split]]
        assert homes
        found[homes[0]] -= expected
        num_topics[homes[0]] += 1
    assert not any(found.values())
    assert num_topics["test"] == round(0.1 * len(distinct_topics())) and num_topics["val"] > 0


def paragraphs(text):
    return {" ".join(paragraph.split()) for paragraph in text.split("\n\n") if len(paragraph) >= 60}


def test_no_split_holds_text_of_another(docs):
    texts = list(distinct_topics().values())
    known = set().union(*(paragraphs(texts[row]) for row in docs._parts["train"].rows))
    for split in ("val", "test"):
        found = set().union(*(paragraphs(texts[row]) for row in docs._parts[split].rows))
        assert sum(map(len, found & known)) < 0.02 * sum(map(len, found))


def test_left_out_topics_are_repeated_by_others():
    kept = distinct_topics()
    known = set().union(*map(paragraphs, kept.values()))
    assert {"try", "with"} <= set(topics) - set(kept) and "compound" in kept
    for name in set(topics) - set(kept):
        found = paragraphs(topics[name])
        assert sum(map(len, found & known)) >= 0.5 * sum(map(len, found))


@pytest.mark.parametrize("seed", range(4))
def test_no_split_of_few_topics_is_tiny(seed):
    data = PythonDocs(split_seed=seed)
    lengths = [len(text) for text in distinct_topics().values()]
    for split in ("val", "test"):
        assert 0.03 < sum(lengths[row] for row in data._parts[split].rows) / sum(lengths) < 0.25


def test_blocks_are_framed_and_padded(docs):
    batch = next(iter(docs.eval_dataloader("val")))
    tokenizer, lengths = docs.tokenizer, batch["attention_mask"].sum(dim=1)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert set(batch) == {"input_ids", "attention_mask", "index"}
    for ids, length in zip(batch["input_ids"], lengths, strict=True):
        assert ids[0] == tokenizer.cls_token_id and ids[length - 1] == tokenizer.sep_token_id
        assert (ids[length:] == tokenizer.pad_token_id).all()
    assert lengths.max() == 64 and lengths.min() < 64


def test_spec_describes_the_tokens(docs):
    spec, tokenizer = docs.spec, docs.tokenizer
    assert (type(spec), spec.length, spec.vocab_size) == (TextSpec, 64, len(tokenizer))
    assert tokenizer.convert_ids_to_tokens(list(spec.special_ids)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert spec.pad_id == 0 and spec.mask_id == tokenizer.mask_token_id == 4
    assert spec.num_classes is None and not docs.labelled
    assert max(docs.columns(split)["input_ids"].max() for split in SPLITS) < spec.vocab_size


def test_ids_decode_to_the_text(docs):
    ids = docs.tokenizer("The object's   TYPE is é.")["input_ids"]
    assert docs.tokenizer.decode(ids, skip_special_tokens=True) == "the object ' s type is e."


def test_the_tokenizer_has_read_the_training_text_alone(docs):
    rows = docs._parts["train"].rows
    texts = list(distinct_topics().values())
    again = train_wordpiece(lambda: iter([[texts[row] for row in rows]]), vocab_size=4096)
    assert again.get_vocab() == docs.tokenizer.get_vocab()


def test_a_saved_tokenizer_gives_the_same_ids(docs, tmp_path):
    docs.tokenizer.save_pretrained(tmp_path)
    again = PythonDocs(max_length=64, tokenizer=str(tmp_path))
    assert again.spec == docs.spec
    for split in SPLITS:
        assert torch.equal(again.columns(split)["input_ids"], docs.columns(split)["input_ids"])


def test_the_same_text_gives_the_same_ids_in_every_process():
    code = (
        "from pydoc_data.topics import topics; from ssl_lab.data.text.tokenizer import train_wordpiece;"
        "texts = [topics[name] for name in sorted(topics)];"
        "print(sorted(train_wordpiece(lambda: iter([texts]), vocab_size=2000).get_vocab().items()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    texts = [topics[name] for name in sorted(topics)]
    ours = train_wordpiece(lambda: iter([texts]), vocab_size=2000).get_vocab()
    assert other.stdout.strip() == str(sorted(ours.items()))


def test_special_tokens_written_in_the_text_are_plain_characters(docs):
    ids = docs.tokenizer("a [MASK] and [PAD]", add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(docs.spec.special_ids)


def test_training_twice_is_deterministic_with_ties_and_rare_characters():
    texts = [chr(0x4E00 + i) + f"ab{chr(97 + i % 26)}{chr(97 + i % 17)}" for i in range(500)]
    first, second = (train_wordpiece(lambda: iter([texts]), vocab_size=200).get_vocab() for _ in range(2))
    assert first == second and len(first) <= 200


PARAGRAPHS = [f"Paragraph {i} is about number {i}.\nIt has two lines." for i in range(30)]
REVIEWS = [(f"a \"quoted {word}' film {i}", k) for i in range(10) for k, word in enumerate(("dull", "bright"))]


def text(data, split):
    return [data.tokenizer.decode(row, skip_special_tokens=True) for row in data.columns(split)["input_ids"]]


@pytest.mark.parametrize(("sample_by", "num"), [("line", 60), ("paragraph", 30)])
@pytest.mark.parametrize("suffix", ["txt", "txt.gz"])
def test_plain_text(tmp_path, sample_by, num, suffix):
    content = "\n\n".join(PARAGRAPHS).encode()
    file = tmp_path / f"my book.{suffix}"
    file.write_bytes(gzip.compress(content) if suffix == "txt.gz" else content)
    data = HubText(str(file), sample_by=sample_by, vocab_size=300)
    found = sum((text(data, split) for split in SPLITS), [])
    assert len(found) == num and not data.labelled
    assert sum("paragraph 7 is about number 7." in block for block in found) == 1


def test_a_folder_of_files_named_by_split(tmp_path):
    for k, name in enumerate(("my.train.txt", "my.valid.txt", "my.test.txt")):
        (tmp_path / name).write_text("\n\n".join(PARAGRAPHS[k::3]))
    (tmp_path / "README.md").write_text("about")
    data = HubText(str(tmp_path), vocab_size=200)
    for k, split in enumerate(SPLITS):
        found = text(data, split)
        assert len(found) == 10 and all(
            f"number {i}." in block for i, block in zip(range(k, 30, 3), found, strict=True)
        )


def test_a_folder_of_books_is_cut_by_document(tmp_path):
    for i in range(10):
        (tmp_path / f"book {i}.txt").write_text("\n\n".join(PARAGRAPHS))
    data = HubText(str(tmp_path), sample_by="document", vocab_size=200, max_length=16)
    sizes = [len(blocks(data, split)) for split in SPLITS]
    assert sizes[0] == 8 * sizes[1] == 8 * sizes[2] > 80


def test_tab_separated_without_header(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("".join(f"{review}\t{label}\n" for review, label in REVIEWS))
    options = {"names": ["sentence", "label"], "header": None}
    data = HubText(str(tmp_path), label_column="label", options=options, vocab_size=200, max_length=12)
    assert data.spec.class_names == ("0", "1") and data.labelled
    for split in SPLITS:
        assert data.columns(split)["input_ids"].shape == (20, 12)
        assert data.columns(split)["label"].tolist() == [0, 1] * 10
    batch = next(iter(data.eval_dataloader("test")))
    assert set(batch) == {"input_ids", "attention_mask", "label", "index"}
    assert "dull" in text(data, "test")[0]


def write_json(file):
    file.write_text(
        "".join(json.dumps({"text": review, "mood": "sad happy".split()[k]}) + "\n" for review, k in REVIEWS)
    )


def write_csv(file):
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "mood"), *((review, "sad happy".split()[k]) for review, k in REVIEWS)])


def write_parquet(file):
    rows = {"text": [review for review, _ in REVIEWS], "mood": ["sad happy".split()[k] for _, k in REVIEWS]}
    datasets.Dataset.from_dict(rows).to_parquet(file)


@pytest.mark.parametrize(
    ("name", "write"),
    [("x.json", write_json), ("x.jsonl", write_json), ("x.csv", write_csv), ("x.parquet", write_parquet)],
)
def test_labels_may_be_names(tmp_path, name, write):
    write(tmp_path / name)
    data = HubText(str(tmp_path / name), label_column="mood", vocab_size=200, max_length=16)
    assert data.spec.class_names == ("happy", "sad")
    for split in SPLITS:
        for line, label in zip(text(data, split), data.columns(split)["label"].tolist(), strict=True):
            assert ("bright" in line) == (label == 0)
    assert len(text(data, "test")) == 2 and len(text(data, "train")) == 16


def test_a_file_for_each_split_and_unlabelled_text(tmp_path):
    write_json(tmp_path / "a.jsonl")
    write_json(tmp_path / "b.jsonl")
    path = {"train": str(tmp_path / "a.jsonl"), "validation": str(tmp_path / "b.jsonl")}
    data = HubText(path, text_column="text", vocab_size=200, test_fraction=0)
    assert len(text(data, "train")) == len(text(data, "val")) == 20 and not data.labelled
    with pytest.raises(ValueError, match="no split 'test'"):
        data.columns("test")


def test_unlabelled_text_beside_labelled_is_cut_in_blocks(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "a good film,1\na bad film,0\n" * 10)
    (tmp_path / "unsupervised.csv").write_text("text,label\n" + f"{'film ' * 50},-1\n" * 2)
    data = HubText(str(tmp_path), label_column="label", vocab_size=100, max_length=12)
    assert data.columns("pretrain")["input_ids"].shape == (2 * 5, 12) and "label" not in data.columns("pretrain")
    assert data.columns("train")["input_ids"].shape == (16, 12) and data.labelled


def test_words_that_pandas_would_take_for_missing_are_kept(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "null,0\nnan,1\nNA,1\n" * 10)
    data = HubText(str(tmp_path / "x.csv"), label_column="label", vocab_size=100, val_fraction=0, test_fraction=0)
    assert text(data, "train")[:3] == ["null", "nan", "na"]


def test_errors(tmp_path):
    write_csv(tmp_path / "x.csv")
    path = str(tmp_path / "x.csv")

    def error(*args, **settings):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            HubText(*args, **settings).columns("train")
        return str(caught.value)

    assert "['text', 'mood']" in error(path, text_column="sentence")
    assert "label_column='stars'" in error(path, label_column="stars")
    (tmp_path / "n.csv").write_text("id,score\n1,2\n")
    assert "none of id, score holds strings" in error(str(tmp_path / "n.csv"))
    assert "max_length" in error(path, max_length=2)
    assert "vocab_size=5" in error(path, vocab_size=5)
    assert "one of ('line'" in error(path, sample_by="word")
    assert "no such file or folder" in error(str(tmp_path / "y.csv"))
    (tmp_path / "real.csv").write_text("text,score\na,0.5\nb,1.5\n")
    assert "holds real numbers" in error(str(tmp_path / "real.csv"), label_column="score")
    (tmp_path / "lists.jsonl").write_text('{"text": "a", "tags": [1, 2]}\n' * 4)
    assert "label_column='tags' holds List" in error(str(tmp_path / "lists.jsonl"), label_column="tags")
    (tmp_path / "two.csv").write_text("title,body\na,b\n")
    assert error(str(tmp_path / "two.csv")).startswith(
        "Cannot choose the text column: several columns hold strings (title, body). Set data.text_column=title (or"
    )
    (tmp_path / "blank.txt").write_text("\n\n \n\n")
    assert "has no text" in error(str(tmp_path / "blank.txt"), val_fraction=0, test_fraction=0)
    (tmp_path / "ragged.csv").write_text('text,label\n"a,0\nb,1\n')
    assert "data.options" in error(str(tmp_path / "ragged.csv"))
    (tmp_path / "other.csv").write_text("text,mood\na,angry\n")
    assert "classes ['angry'] in test that train lacks" in error(
        {"train": path, "test": str(tmp_path / "other.csv")}, label_column="mood"
    )
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "test.csv").write_text("text\na\n")
    assert "test.csv, train.txt are named after splits, but blank.txt, lists.jsonl, " in error(str(tmp_path))
    assert "must be of one kind" in error({"train": path, "test": str(tmp_path / "train.txt")})


def test_a_tokenizer_that_cannot_be_used(tmp_path, monkeypatch, docs):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"(?s)nobody/nothing.*data\.tokenizer"):
        PythonDocs(tokenizer="nobody/nothing").spec  # noqa: B018
    docs.tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": None}))
    with pytest.raises(ValueError, match="has no padding token"):
        PythonDocs(tokenizer=str(tmp_path)).spec  # noqa: B018


def test_an_odd_file_name(tmp_path):
    (tmp_path / "a [b]*.txt").write_text("\n\n".join(PARAGRAPHS))
    assert len(text(HubText(str(tmp_path / "a [b]*.txt"), vocab_size=300), "train")) == 24


def test_batches_on_the_cpu_end_with_their_longest_text(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("\n".join(["a b c"] * 6 + ["a b c d e f g h i"] * 2))
    data = HubText(str(file), sample_by="line", vocab_size=60, max_length=32, val_fraction=0, test_fraction=0)
    data.batch_size = data.eval_batch_size = 2
    lengths = []
    for batch in data.eval_dataloader("train"):
        whole = data.columns("train")["input_ids"][batch["index"]].long()
        length = batch["input_ids"].shape[1]
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert torch.equal(nn.functional.pad(batch["input_ids"], (0, 32 - length)), whole), "what is cut is padding"
        lengths.append(length)
    assert lengths == [8, 8, 8, 12], "5 and 11 tokens, rounded up to an eighth of 32"
    encoder = TextTransformer(data.spec, size="tiny").eval()
    whole_batch = {"input_ids": whole, "attention_mask": (whole != data.spec.pad_id).long()}
    torch.testing.assert_close(encoder.embed(batch), encoder.embed(whole_batch), rtol=1e-5, atol=1e-6)
