import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from ssl_lab.cli.main import main
from ssl_lab.data.text import encode, shards
from ssl_lab.data.text import prepare as module
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.prepare import prepare
from ssl_lab.data.text.python_docs import PythonDocs
from ssl_lab.data.text.shards import TokenShards
from ssl_lab.files import _host

SPLITS = ("train", "val", "test")
PIECE = 0.02  # MiB of a shard


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "shards"
    prepare(PythonDocs(vocab_size=1000, framing="causal"), out, num_workers=2, shard_mib=PIECE)
    return out


@pytest.mark.parametrize("framing", ["encoder", "causal"])
@pytest.mark.parametrize("packing", [False, True])
def test_rows_are_those_of_the_corpus_itself(docs, framing, packing):
    settings = {"max_length": 48, "packing": packing}
    shards = TokenShards(str(docs), framing=framing, **settings)
    tokenizer = None if framing == "causal" else str(docs / "tokenizer")
    whole = PythonDocs(vocab_size=1000, framing=framing, tokenizer=tokenizer, **settings)
    assert shards.spec == whole.spec and shards.title == whole.title
    for split in SPLITS:
        found, expected = shards.columns(split), whole.columns(split)
        assert list(found) == list(expected) == ["input_ids", "document_ids"][: 1 + packing]
        for name, column in expected.items():
            assert torch.equal(torch.from_numpy(found[name].whole()), column), name
        assert shards.padding_share(split) == pytest.approx(whole.padding_share(split))
        assert shards.text_counts(split) == whole.text_counts(split)
    batches = [next(iter(data.train_dataloader())) for data in (shards, whole)]
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[1])


def test_what_is_on_the_disk(docs):
    manifest = json.loads((docs / "manifest.json").read_text())
    assert manifest["finished"] and len(manifest["splits"]["train"]["shards"]) > 5
    num_tokens = sum(split["num_tokens"] for split in manifest["splits"].values())
    files = [file for file in docs.glob("*.npy")]
    assert sum(file.stat().st_size for file in files) < 2 * num_tokens + 300 * len(files)
    assert {np.load(file).dtype for file in docs.glob("*.ids.npy")} == {np.dtype(np.uint16)}


def test_arrays_that_no_manifest_names_are_counted(docs, capsys):
    (docs / "train-00099.ids.npy").touch()
    TokenShards(str(docs)).columns("test")
    (docs / "train-00099.ids.npy").unlink()
    assert "1 .npy files left out, not in manifest.json (train-00099.ids.npy)" in capsys.readouterr().out


def test_an_interrupted_epoch_goes_on_with_the_next_batch(docs):
    def loader():
        return TokenShards(str(docs), max_length=32, packing=True, batch_size=8, seed=3).train_dataloader()

    whole = [batch["input_ids"] for batch in loader()]
    stopped = loader()
    for _, _ in zip(range(4), stopped, strict=False):
        pass
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    rest = [batch["input_ids"] for batch in resumed]
    assert len(rest) == len(whole) - 4
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[4:], strict=True))


KILLED = """
import sys
from pathlib import Path
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.files import _host
from ssl_lab.data.text.prepare import prepare
prepare(HubText(sys.argv[1], vocab_size=200), Path(sys.argv[2]), num_workers=2, shard_mib=0.0005)
"""


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_preparation_keeps_its_finished_shards(tmp_path):
    corpus, out = tmp_path / "corpus.txt", tmp_path / "shards"
    corpus.write_text("\n\n".join(f"Paragraph {i} is about the number {i * i}." for i in range(2000)))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(corpus), str(out)])
    while len(list(out.glob("*.ids.npy"))) < 3:
        assert process.poll() is None
        time.sleep(0.002)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((out / "manifest.json").read_text())["finished"]
    with pytest.raises(ValueError, match="not finished"):
        TokenShards(str(out)).columns("train")
    while any(map(alive, workers)):  # they end with their parent
        time.sleep(0.01)
    kept = {file: file.stat().st_mtime_ns for file in out.glob("*.ids.npy")}
    (out / f".train-00000.ids.npy.{_host()}-{process.pid}.0a1b2c3d.unfinished").write_bytes(b"torn")
    data = HubText(str(corpus), vocab_size=200)
    manifest = prepare(data, out, num_workers=1)
    assert manifest["finished"] and len(kept) < sum(len(split["shards"]) for split in manifest["splits"].values())
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert not list(out.glob("*.unfinished")) + list(out.glob(".*.unfinished"))
    for split in SPLITS:
        found = TokenShards(str(out)).columns(split)["input_ids"].whole()
        assert torch.equal(torch.from_numpy(found), data.columns(split)["input_ids"])


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("\n\n".join(f"Paragraph {i} is about number {i}." for i in range(30)))
    return file


def test_a_changed_corpus_or_setting_is_noticed(tmp_path, corpus):
    out = tmp_path / "shards"

    def again(**settings):
        return prepare(HubText(str(corpus), **{"vocab_size": 200, **settings}), out, num_workers=1)

    first = again()
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.npy")}
    assert again() == first
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.npy")} == before
    with pytest.raises(ValueError, match=r"vocab_size: 200 there, 100 now.*another out="):
        again(vocab_size=100)
    with pytest.raises(ValueError, match=r"tokenizer_kind: wordpiece there, characters now"):
        again(tokenizer_kind="characters")
    with pytest.raises(ValueError, match=r"split_seed: 0 there, 1 now, text of \w+:"):
        again(split_seed=1)
    (out / "test-00000.ids.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"test-00000\.ids\.npy.*gone"):
        TokenShards(str(out)).columns("test")
    assert again() == first
    (out / "train-00000.lengths.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-00000\.lengths\.npy.*gone"):
        TokenShards(str(out)).columns("train")
    assert again() == first
    torn = out / "train-00000.ids.npy"
    torn.write_bytes(torn.read_bytes()[:30])
    assert again() == first
    corpus.write_text(corpus.read_text().replace("Paragraph", "Section"))
    with pytest.raises(ValueError, match="text of train:"):
        again()
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json of shards"):
        again()


def test_a_changed_tokenizer_or_shard_is_noticed(tmp_path, corpus, docs):
    out = tmp_path / "shards"
    prepare(HubText(str(corpus), tokenizer=str(docs / "tokenizer")), out, num_workers=1)
    assert TokenShards(str(out), tokenizer=str(docs / "tokenizer")).spec.vocab_size == 1000
    other = HubText(str(corpus), vocab_size=200)
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"Cannot use the tokenizer .* was tokenised with another one"):
        TokenShards(str(out), tokenizer=str(tmp_path / "other")).columns("train")
    shard = out / "train-00000.ids.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=r"train-00000 in .* is damaged.*Give its ssl-lab prepare command once more"):
        TokenShards(str(out)).columns("train")
    shard.write_bytes(whole)
    other.tokenizer.save_pretrained(out / "tokenizer")
    with pytest.raises(ValueError, match=r"has changed since the shards were written"):
        TokenShards(str(out)).columns("train")
    with pytest.raises(ValueError, match=r"has changed since shards were written"):
        prepare(HubText(str(corpus), tokenizer=str(docs / "tokenizer")), out, num_workers=1)


@pytest.mark.parametrize(("vocab_size", "kind"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_large_vocabularies_are_stored_in_32_bits(docs, tmp_path, monkeypatch, vocab_size, kind):
    monkeypatch.setitem(encode._worker, "tokenizer", Tokenizer.from_file(str(docs / "tokenizer" / "tokenizer.json")))
    num = encode.encode_shard(tmp_path, "x", ["a word"] * 300, vocab_size=vocab_size, split_special_tokens=True)
    ids, lengths = np.load(tmp_path / "x.ids.npy"), np.load(tmp_path / "x.lengths.npy")
    assert (ids.dtype, lengths.dtype) == (kind, np.uint8) and len(ids) == lengths.sum() == num


def test_refusals(tmp_path, corpus, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json. Write it with ssl-lab prepare"):
        TokenShards(str(tmp_path)).spec  # noqa: B018
    (tmp_path / "x.csv").write_text("text,label\n" + "a,0\nb,1\n" * 10)
    with pytest.raises(ValueError, match="label_column=null"):
        prepare(HubText(str(tmp_path / "x.csv"), label_column="label"), tmp_path / "out")
    with pytest.raises(ValueError, match="must be positive"):
        prepare(HubText(str(corpus)), tmp_path / "out", num_workers=0)

    def while_another_runs(*args, **settings):
        with pytest.raises(ValueError, match="Another process is preparing"):
            prepare(HubText(str(corpus)), tmp_path / "out")

    monkeypatch.setattr(module, "_prepare", while_another_runs)
    prepare(HubText(str(corpus)), tmp_path / "out")


def test_the_command_and_a_run_on_its_shards(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["data=text_files", f"data.path={corpus}", "data.vocab_size=150", "data.tokenizer_kind=characters"]
    assert main(["prepare", *settings, "out=shards", "num_workers=1"]) == 0
    assert "24 documents" in capsys.readouterr().out
    small = ["trainer=smoke", "encoder=bert_tiny", "data.max_length=32", "data.batch_size=4", "run_dir=run"]
    small += ["data=shards", "data.path=shards", "data.packing=true"]
    assert main(["pretrain", "experiment=mlm_text", *small]) == 0
    assert "data/padding_share" in capsys.readouterr().out
    metrics = json.loads(Path("run/summary.json").read_text())["metrics"]
    assert 0 < metrics["data/padding_share"] < 0.3
    assert metrics["perf/tokens_per_sec"] < 32 * metrics["perf/samples_per_sec"]
    assert main(["evaluate", "run=run"]) == 0
    assert main(["prepare", "data=digits", "out=shards"]) == 1
    assert "tokenises text" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.* has no test split")
def test_packed_rows_without_a_test_split_are_trained_on_and_drawn(tmp_path, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["data=text_files", f"data.path={corpus}", "data.vocab_size=150", "data.test_fraction=0"]
    assert main(["prepare", *settings, "out=shards", "num_workers=1"]) == 0
    settings = ["data=shards", "data.path=shards", "data.packing=true", "data.max_length=32", "data.batch_size=4"]
    small = ["trainer=cpu", "trainer.max_epochs=-1", "trainer.max_steps=2", "encoder=bert_tiny", "run_dir=run"]
    assert main(["pretrain", "experiment=mlm_text", *settings, *small]) == 0
    metrics = json.loads(Path("run/summary.json").read_text())["metrics"]
    assert "eval/masked/accuracy" in metrics and not [name for name in metrics if name.startswith("test/")]
    assert list(Path("run/pictures").rglob("*.json"))


@pytest.mark.parametrize("content", ['{"a": ' + "[" * 100_000, "x" * 30, "[]"])
def test_a_manifest_of_a_stranger_ends_with_a_message(tmp_path, content, monkeypatch):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json was changed or damaged"):
        TokenShards(str(tmp_path)).title  # noqa: B018
    monkeypatch.setattr(shards, "_LARGEST_MANIFEST", 1)
    with pytest.raises(ValueError, match="has more than 1 bytes"):
        TokenShards(str(tmp_path)).title  # noqa: B018
