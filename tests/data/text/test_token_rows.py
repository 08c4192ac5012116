import numpy as np
import pytest
import torch

from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.python_docs import PythonDocs
from ssl_lab.data.text.token_rows import Frame, TokenRows
from ssl_lab.data.text.tokenizer import train_tokenizer

ENCODER = Frame(before=(1,), after=(2,), pad=0)
CAUSAL = Frame(end=(3,), pad=0)
LENGTHS = np.random.default_rng(0).integers(0, 40, size=200)
IDS = np.arange(10, 10 + LENGTHS.sum())


def token_rows(frame, *, packing, num_arrays=1, **settings):
    parts = np.array_split(LENGTHS, num_arrays)
    ids = np.split(IDS, np.cumsum([part.sum() for part in parts])[:-1])
    return TokenRows(ids, parts, frame=frame, max_length=16, vocab_size=20_000, packing=packing, **settings)


def pieces(rows):
    """Each piece of each row, without padding."""
    columns = rows.columns()
    ids = columns["input_ids"].whole()
    numbers = columns["document_ids"].whole() if "document_ids" in columns else (ids != 0).astype(int)
    assert ((ids != 0) == (numbers > 0)).all()
    return [
        row[number == k].tolist() for row, number in zip(ids, numbers, strict=True) for k in range(1, number.max() + 1)
    ]


def expected(frame):
    """The pieces by a plain loop over documents."""
    room = 16 - len(frame.before) - len(frame.after)
    found = []
    for start, length in zip(np.cumsum(LENGTHS) - LENGTHS, LENGTHS, strict=True):
        document = [*IDS[start : start + length].tolist(), *frame.end]
        cut = [document[k : k + room] for k in range(0, len(document), room)] or [[]]
        found += [[*frame.before, *piece, *frame.after] for piece in cut]
    return found


@pytest.mark.parametrize("num_arrays", [1, 3])
@pytest.mark.parametrize("frame", [ENCODER, CAUSAL], ids=["encoder", "causal"])
def test_no_token_is_lost(frame, num_arrays):
    plain = token_rows(frame, packing=False, num_arrays=num_arrays)
    packed = token_rows(frame, packing=True, num_arrays=num_arrays)
    assert pieces(plain) == expected(frame)
    assert sorted(pieces(packed)) == sorted(expected(frame))
    assert packed.padding_share < 0.02 < plain.padding_share and len(packed) < len(plain)
    real = (packed.columns()["document_ids"].whole() > 0).mean()
    assert packed.padding_share == pytest.approx(1 - real)


def test_documents_of_a_row_are_numbered_in_order_without_gaps():
    numbers = token_rows(CAUSAL, packing=True).columns()["document_ids"].whole()
    for row in numbers:
        real = row[row > 0]
        assert (row[: len(real)] > 0).all() and set(np.diff(real)) <= {0, 1} and real[0] == 1


def test_rows_are_read_in_any_order():
    rows = token_rows(ENCODER, packing=True).columns()
    index = np.array([5, 0, 5, len(rows["input_ids"]) - 1])
    for column in rows.values():
        assert np.array_equal(column[index], column.whole()[index])
        assert column.whole().nbytes == column.nbytes and column.whole().dtype == column.dtype


def test_the_begin_of_a_document_keeps_its_end():
    rows = token_rows(CAUSAL, packing=False, truncate=True)
    assert len(rows) == len(LENGTHS)
    found = pieces(rows)
    assert all(piece[-1] == 3 for piece in found)
    assert [len(piece) for piece in found] == np.minimum(LENGTHS + 1, 16).tolist()


def test_one_long_text_is_cut_into_consecutive_blocks(tmp_path):
    text = "".join(chr(97 + k % 7) + " \n"[k % 2] for k in range(500))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text(text)
    settings = {"sample_by": "document", "tokenizer_kind": "characters", "framing": "causal"}
    data = HubText(str(tmp_path), max_length=32, **settings)
    ids = data.columns("train")["input_ids"]
    assert ids.shape == (-(-1001 // 32), 32)
    assert data.tokenizer.decode(ids.flatten()[:1000]) == text
    assert ids.flatten()[1000] == data.tokenizer.eos_token_id and (ids.flatten()[1001:] == 0).all()
    assert "document_ids" not in data.columns("train")


@pytest.fixture(scope="module")
def packed():
    return PythonDocs(max_length=64, packing=True)


def test_packed_batches(packed):
    batch = next(iter(packed.eval_dataloader("val")))
    assert set(batch) == {"input_ids", "attention_mask", "document_ids", "index"}
    assert {column.dtype for column in batch.values()} == {torch.int64}
    assert torch.equal(batch["attention_mask"], (batch["document_ids"] > 0).long())
    starts = batch["document_ids"].diff(dim=1, prepend=torch.zeros_like(batch["index"])[:, None]) > 0
    assert torch.equal(starts, batch["input_ids"] == packed.tokenizer.cls_token_id)
    assert packed.columns("val")["document_ids"].dtype == torch.int8


def test_packing_shares_rows_and_says_how_much_is_padding(packed):
    plain = PythonDocs(max_length=64)
    for split in ("train", "val"):
        real = [data.columns(split)["input_ids"] != 0 for data in (plain, packed)]
        assert real[0].sum() == real[1].sum()
        assert packed.padding_share(split) == pytest.approx(1 - real[1].double().mean())
        assert packed.padding_share(split) <= plain.padding_share(split)
    assert packed.metrics() == {"data/padding_share": packed.padding_share("train")}


def test_text_counts(tmp_path):
    (tmp_path / "x.txt").write_text("one  two\nthrée\n\n" * 10 + " \n\n", encoding="utf-8")
    counts = HubText(str(tmp_path / "x.txt"), vocab_size=100, val_fraction=0, test_fraction=0).text_counts("train")
    assert (counts.num_documents, counts.num_words, counts.num_bytes) == (10, 30, 10 * len("one  two\nthrée".encode()))


def test_packing_of_labelled_text_has_no_effect_and_says_so(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "a good film,1\na bad film,0\n" * 10)
    data = HubText(str(tmp_path / "x.csv"), label_column="label", vocab_size=100, packing=True)
    with pytest.warns(UserWarning, match="no effect on labelled text"):
        assert "document_ids" not in data.columns("train")


def test_the_share_of_tokens_that_are_unknown_is_counted(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/train.txt").write_text("the cat sat\n" * 30)
    (tmp_path / "texts/val.txt").write_text("a mat\n")
    train_tokenizer("wordpiece", lambda: iter([["the cat"] * 100]), vocab_size=100).save_pretrained(tmp_path / "known")
    data = HubText(path=str(tmp_path / "texts"), tokenizer=str(tmp_path / "known"), max_length=16, batch_size=2)
    data.prepare_data()
    assert data.metrics()["data/unknown_share"] == pytest.approx(1 / 3)
