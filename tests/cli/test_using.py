"""What is done with a finished run of text: masks are filled, models exported."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from ssl_lab.cli import config
from ssl_lab.cli.main import main
from ssl_lab.data.tokenizer import load_tokenizer

SENTENCES = [f"The {animal} runs {count} miles." for animal in ("dog", "cat", "fox", "cow") for count in range(10)]
TEXTS = ["The dog runs 3 miles.", "the [MASK] and [PAD], [SEP] too", "an unknown \u4e16 sign", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("using")
    (folder / "animals.txt").write_text("\n".join(SENTENCES))
    return folder


def pretrain(folder, name, *args):
    data = ["data=text_files", f"data.path={folder / 'animals.txt'}", "data.sample_by=line", "data.vocab_size=128"]
    small = [
        "data.max_length=16",
        "data.batch_size=8",
        "trainer=smoke",
        "trainer.max_steps=40",
        "trainer.max_epochs=40",
    ]
    words = ["pretrain", *data, *small, f"run_dir={folder / name}", *args]
    assert main(words) == 0
    return folder / name


@pytest.fixture(scope="module")
def mlm(folder):
    return pretrain(folder, "mlm", "method=mlm", "encoder=bert_tiny", "encoder.dropout=0.0", "evaluation=mlm")


def sample(capsys, *args):
    capsys.readouterr()
    assert main(["sample", *args]) == 0
    return capsys.readouterr().out.splitlines()


def test_masks_are_filled_with_guesses_and_a_completed_text(mlm, capsys):
    first, second, completed = sample(capsys, f"run={mlm}", "text=The [MASK] runs 3 [MASK].", "top_k=3")
    assert first.startswith("mask 1:  ") and second.startswith("mask 2:  ")
    for line in (first, second):
        shares = [float(share) for share in re.findall(r"([\d.]+) %", line)]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.1
    assert "miles" in second
    assert re.fullmatch(r"the \S+ runs 3 \S+\.", completed) and "[MASK]" not in completed


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["text=The dog runs."], "has none. Write [MASK] where a word is missing"),
        (["text=[MASK] " + "dog " * 20], "but the run has learned from at most 16"),
        (["text=a [MASK]", "top_k=0"], "top_k=0 was asked for; it lies between 1 and"),
        (["text=a [MASK]", "num_samples=3"], "To sample masks, num_samples has no meaning"),
        ([], 'It fills masks: give text="..."'),
    ],
)
def test_errors_of_masks_are_one_message(mlm, capsys, args, message):
    assert main(["sample", f"run={mlm}", *args]) == 1
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


@pytest.fixture(scope="module")
def vae(folder):
    small = ["encoder.widths=[8]", "method.decoder_width=8", "data.batch_size=64", "trainer=smoke", "evaluation=none"]
    assert main(["pretrain", "method=vae", *small, f"run_dir={folder / 'vae'}"]) == 0
    return folder / "vae"


def test_a_run_of_images_fills_no_masks_and_is_not_exported(vae, folder, capsys):
    assert main(["sample", f"run={vae}", "text=a [MASK]"]) == 1
    assert "VAE does not predict masked tokens. Give run= a run of method=mlm" in capsys.readouterr().err
    assert main(["export", f"run={vae}", f"out={folder / 'no'}"]) == 1
    assert "is a ConvNet, which transformers has no class for. Runs of text methods" in capsys.readouterr().err
    assert not (folder / "no").exists()


def batch_of(tokenizer):
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


def check_tokenizer(run_dir, out):
    ours, theirs = load_tokenizer(str(run_dir / "tokenizer")), AutoTokenizer.from_pretrained(out)
    assert ours(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]
    assert (
        ours(TEXTS, split_special_tokens=False)["input_ids"] == theirs(TEXTS, split_special_tokens=False)["input_ids"]
    )
    assert ours.all_special_ids == theirs.all_special_ids and len(ours) == len(theirs)
    assert len(theirs("dog " * 50, truncation=True)["input_ids"]) == 16
    return theirs


def run_snippet(out, monkeypatch):
    """The Python in the model card, as a reader would run it in the folder."""
    monkeypatch.chdir(out)
    (code,) = re.findall(r"```python\n(.*?)```", (Path(out) / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


def test_an_exported_masked_model_gives_the_same_logits(mlm, tmp_path, capsys, monkeypatch):
    out = tmp_path / "exported"
    assert main(["export", f"run={mlm}", "format=hf", f"out={out}"]) == 0
    assert "BertForMaskedLM for transformers.AutoModelForMaskedLM" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"
    method = config.load_run(mlm)[2]
    inputs = batch_of(check_tokenizer(mlm, out))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    model = AutoModelForMaskedLM.from_pretrained(out)
    with torch.no_grad():
        logits = method.capabilities()["predict_masked"](ids, mask, mask == 1)
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits[mask == 1], logits)
        hidden = AutoModel.from_pretrained(out)(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(hidden, method.encoder(ids, mask))
    stored = load_file(out / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())

    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "fill-mask")
    perplexity = json.loads((mlm / "evaluation.json").read_text())["rows"][-1]["metrics"]["masked/perplexity"]
    for text in ("MLM on animals.txt", "BertForMaskedLM", f"{sum(p.numel() for p in model.parameters()):,}", "| 40 |"):
        assert text in card.text, text
    assert f"{perplexity:.1f}" in card.text and "word frequencies alone" in card.text
    run_snippet(out, monkeypatch)
    assert len(re.findall(r"'([^']+)'", capsys.readouterr().out)) == 5


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_exported_encoder_gives_the_same_features(folder, tmp_path, capsys, monkeypatch, pooling):
    args = ["method=simcse", "encoder=bert_tiny", f"encoder.pooling={pooling}", "evaluation=none"]
    run_dir = pretrain(folder, f"simcse_{pooling}", *args)
    out = tmp_path / "exported"
    assert main(["export", f"run={run_dir}", f"out={out}"]) == 0
    inputs = batch_of(check_tokenizer(run_dir, out))
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(out)(**inputs).last_hidden_state
        method = config.load_run(run_dir)[2]
        assert torch.equal(hidden, method.encoder(inputs["input_ids"], inputs["attention_mask"]))
    run_snippet(out, monkeypatch)
    assert "torch.Size([2, 128])" in capsys.readouterr().out


def test_an_export_replaces_nothing_but_an_export_that_may_be_replaced(mlm, tmp_path, capsys):
    out = tmp_path / "folder"
    out.mkdir()
    command = ["export", f"run={mlm}", f"out={out}"]
    assert main(command) == 0
    weights = (out / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(command) == 1
    assert "overwrite=true to replace it" in capsys.readouterr().err
    (out / "model.safetensors").write_bytes(b"")
    (out / "older.txt").write_text("")
    assert main([*command, "overwrite=true"]) == 0
    assert (out / "model.safetensors").read_bytes() == weights and not (out / "older.txt").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    capsys.readouterr()
    assert main(["export", f"run={mlm}", f"out={tmp_path / 'mine'}", "overwrite=true"]) == 1
    assert "is not empty and no earlier export" in capsys.readouterr().err
    assert main(["export", f"run={mlm}", f"out={tmp_path / 'mine/thesis.txt'}"]) == 1
    assert "which is a file" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    assert main(["export", f"run={mlm}", f"out={out}", "format=onnx"]) == 1
    assert "There is no format 'onnx'. Choose format= from hf" in capsys.readouterr().err


def test_a_failed_export_leaves_what_was_there(mlm, tmp_path, monkeypatch):
    out = tmp_path / "exported"
    assert main(["export", f"run={mlm}", f"out={out}"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", fail)
    assert main(["export", f"run={mlm}", f"out={out}", "overwrite=true"]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]
