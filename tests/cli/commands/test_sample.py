"""What is done with a finished run of text: masks are filled, models exported."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    T5EncoderModel,
)

from ssl_lab.cli import build as config
from ssl_lab.cli.main import main
from ssl_lab.data.text.tokenizer import load_tokenizer, train_tokenizer
from ssl_lab.data.text.words import continuing_tokens
from ssl_lab.generate.complete import complete
from ssl_lab.generate.fill_masks import fill_masks
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.span_corruption import Corrupted

pytestmark = pytest.mark.filterwarnings("ignore:Features have collapsed")  # forty sentences that are nearly one

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
        "data.max_length=24",
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
    assert '"miles"' in second
    assert re.fullmatch(r"the \S+ runs 3 \S+\.", completed) and "[MASK]" not in completed


def test_a_run_that_was_compiled_is_used_as_it_is(mlm, tmp_path, capsys):
    run_dir = shutil.copytree(mlm, tmp_path / "compiled")
    settings = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(settings.replace("compile: false", "compile: true"))
    assert config.load_run(run_dir)[2].encoder._compiled_call_impl is None
    assert sample(capsys, f"run={run_dir}", "text=a [MASK]") == sample(capsys, f"run={mlm}", "text=a [MASK]")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["text=The dog runs."], "has none. Write [MASK] where a word is missing"),
        (["text=[MASK] " + "dog " * 30], "but the run was trained on at most 24"),
        (["text=a [MASK]", "top_k=0"], "Cannot use top_k=0: the run has"),
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
    small = ["encoder.widths=[8]", "method.decoder.width=8", "data.batch_size=64", "trainer=smoke", "evaluation=none"]
    assert main(["pretrain", "method=vae", *small, f"run_dir={folder / 'vae'}"]) == 0
    return folder / "vae"


def test_a_run_of_images_fills_no_masks_and_is_not_exported(vae, folder, capsys):
    assert main(["sample", f"run={vae}", "text=a [MASK]"]) == 1
    assert "VAE does not predict masked tokens. Give run= a run of method=mlm" in capsys.readouterr().err
    assert main(["sample", f"run={vae}", "prompt=a"]) == 1
    assert "VAE does not generate any. Give run= a run of method=causal_lm" in capsys.readouterr().err
    assert main(["export", f"run={vae}", f"out={folder / 'no'}"]) == 1
    assert "no class for the encoder of this run, a ConvNet. Export it with format=onnx" in capsys.readouterr().err
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
    assert len(theirs("dog " * 50, truncation=True)["input_ids"]) == 24
    return theirs


def run_snippet(out, monkeypatch):
    """The Python in the model card, as a reader would run it in the folder."""
    monkeypatch.chdir(out)
    (code,) = re.findall(r"```python\n(.*?)```", (Path(out) / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


MASKED = {
    "bert": ("BertForMaskedLM", ["data.tokenizer_kind=wordpiece"]),
    "roberta": ("RobertaForMaskedLM", ["data.tokenizer_kind=bpe", "data.vocab_size=400"]),
    "modernbert": ("ModernBertForMaskedLM", ["data.tokenizer_kind=unigram"]),
}


@pytest.mark.parametrize("architecture", MASKED)
def test_an_exported_masked_model_gives_the_same_logits(folder, tmp_path, capsys, monkeypatch, architecture):
    name, data = MASKED[architecture]
    encoder = ["encoder=bert_tiny", f"encoder.architecture={architecture}"]
    run_dir = pretrain(folder, architecture, "method=mlm", *encoder, *data, "trainer.max_steps=4", "evaluation=mlm")
    out = tmp_path / "exported"
    capsys.readouterr()
    assert main(["export", f"run={run_dir}", "format=hf", f"out={out}"]) == 0
    assert f"{name} for transformers.AutoModelForMaskedLM" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"
    method = config.load_run(run_dir)[2]
    inputs = batch_of(check_tokenizer(run_dir, out))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    model = AutoModelForMaskedLM.from_pretrained(out)
    with torch.no_grad():
        logits = method.capabilities()["predict_masked"](ids, mask, mask == 1)
        exported = model(input_ids=ids, attention_mask=mask).logits[mask == 1]
        torch.testing.assert_close(exported, logits, rtol=0, atol=1e-6)
        hidden = AutoModel.from_pretrained(out)(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(hidden[mask == 1], method.encoder(ids, mask)[mask == 1], rtol=0, atol=2e-6)

    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "fill-mask")
    perplexity = json.loads((run_dir / "evaluation.json").read_text())["rows"][-1]["metrics"]["masked/perplexity"]
    for text in (
        "MLM on animals.txt",
        name,
        f"{sum(p.numel() for p in model.parameters()):,}",
        "| Steps | 4 |",
    ):
        assert text in card.text, text
    assert f"{perplexity:.1f}" in card.text and "word frequencies alone" in card.text
    run_snippet(out, monkeypatch)
    assert len(re.findall(r"'([^']+)'", capsys.readouterr().out)) == 5


@pytest.fixture(scope="module")
def causal(folder):
    data = ["data.framing=causal", "data.tokenizer_kind=bpe", "data.vocab_size=400"]
    encoder = ["encoder=gpt2_mini", "encoder.size=tiny", "encoder.dropout=0.0"]
    return pretrain(folder, "causal", "method=causal_lm", *data, *encoder, "evaluation=none")


def test_an_exported_causal_model_gives_the_same_logits(causal, tmp_path, capsys, monkeypatch):
    out = tmp_path / "exported"
    assert main(["export", f"run={causal}", f"out={out}"]) == 0
    assert "GPT2LMHeadModel for transformers.AutoModelForCausalLM" in capsys.readouterr().out
    method = config.load_run(causal)[2]
    inputs = batch_of(check_tokenizer(causal, out))
    real = inputs["attention_mask"] == 1
    with torch.no_grad():
        logits = method.lm_head(method.encoder(inputs["input_ids"], inputs["attention_mask"]))
        exported = AutoModelForCausalLM.from_pretrained(out)(**inputs).logits
        torch.testing.assert_close(exported[real], logits[real], rtol=0, atol=2e-6)
        hidden = AutoModel.from_pretrained(out)(**inputs).last_hidden_state
        assert hidden.shape[-1] == method.encoder.embed_dim
    assert ModelCard.load(out / "README.md").data.pipeline_tag == "text-generation"
    run_snippet(out, monkeypatch)
    assert capsys.readouterr().out.startswith("The statement")


def test_an_exported_t5_gives_the_same_logits(folder, tmp_path, capsys, monkeypatch):
    encoder = ["encoder=t5_mini", "encoder.size=tiny", "trainer.max_steps=4", "evaluation=none"]
    run_dir = pretrain(folder, "t5", "method=span_denoising", *encoder)
    out = tmp_path / "exported"
    assert main(["export", f"run={run_dir}", f"out={out}"]) == 0
    assert "T5ForConditionalGeneration for transformers.AutoModelForSeq2SeqLM" in capsys.readouterr().out
    method = config.load_run(run_dir)[2]
    inputs = batch_of(check_tokenizer(run_dir, out))
    spans = inputs["input_ids"][:, :6].contiguous()
    corrupted = Corrupted(**inputs, labels=spans, cut=None, places=None)
    with torch.no_grad():
        exported = AutoModelForSeq2SeqLM.from_pretrained(out)(**inputs, labels=spans).logits
        torch.testing.assert_close(exported, method.predict(corrupted), rtol=0, atol=2e-6)
    run_snippet(out, monkeypatch)


def test_an_exported_t5_encoder_of_another_method_gives_the_same_features(folder, tmp_path, capsys, monkeypatch):
    encoder = ["encoder=t5_mini", "encoder.size=tiny", "trainer.max_steps=2", "evaluation=none"]
    run_dir = pretrain(folder, "t5_simcse", "method=simcse", *encoder)
    out = tmp_path / "exported"
    assert main(["export", f"run={run_dir}", f"out={out}"]) == 0
    assert "T5EncoderModel for transformers.T5EncoderModel" in capsys.readouterr().out
    method = config.load_run(run_dir)[2]
    inputs = batch_of(check_tokenizer(run_dir, out))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        exported = T5EncoderModel.from_pretrained(out)(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(exported[mask == 1], method.encoder(ids, mask)[mask == 1], rtol=0, atol=2e-6)
    assert "model = T5EncoderModel.from_pretrained(folder)" in (out / "README.md").read_text()
    run_snippet(out, monkeypatch)


def test_the_card_of_a_fine_tuned_model_says_so(folder, tmp_path):
    run_dir = pretrain(
        folder, "before_task", "method=mlm", "encoder=bert_tiny", "trainer.max_steps=2", "evaluation=none"
    )
    rows = [f"{text},{k % 2}" for k, text in enumerate(SENTENCES)]
    (tmp_path / "task.csv").write_text("\n".join(["text,label", *rows]))
    data = [
        "data=hub_text",
        f"data.path={tmp_path / 'task.csv'}",
        "data.label_column=label",
        "data.max_length=16",
        "data.batch_size=8",
    ]
    assert main(["finetune", f"run={run_dir}", *data, "trainer=smoke", f"run_dir={tmp_path / 'tuned'}"]) == 0
    cell, out = tmp_path / "tuned/pretrained/seed_0", tmp_path / "exported"
    assert main(["export", f"run={cell}", f"out={out}"]) == 0
    card = (out / "README.md").read_text()
    assert "A BertModel fine-tuned with the labels of task.csv" in card
    assert "without labels" not in card and "| Started from | the run before_task |" in card


def test_texts_go_on_with_a_prompt_and_the_seed_decides(causal, capsys):
    draw = [f"run={causal}", "prompt=The dog runs", "num_samples=3", "max_new_tokens=6"]
    first, again, other = (sample(capsys, *draw, f"seed={seed}") for seed in (0, 0, 1))
    assert first == again != other
    texts = "\n".join(first).split("\n\n")
    assert len(texts) == 3 and all(text.startswith("The dog runs") for text in texts)
    greedy = sample(capsys, f"run={causal}", "prompt=The dog", "temperature=0")
    assert greedy == sample(capsys, f"run={causal}", "prompt=The dog", "top_k=1", "seed=3")
    assert greedy == sample(capsys, f"run={causal}", "prompt=The dog", "top_p=0.000001", "temperature=2.0")
    method = config.load_run(causal)[2]
    tokenizer = load_tokenizer(str(causal / "tokenizer"))
    ids = tokenizer("The dog", return_tensors="pt", add_special_tokens=False)["input_ids"]
    no_text = [i for i in method.encoder.spec.special_ids if i != tokenizer.eos_token_id]
    wanted, start = ids.shape[1] + 50, 0
    while ids.shape[1] < wanted and ids[0, -1] != tokenizer.eos_token_id:  # without a cache of keys and values
        if ids.shape[1] - start == 24:
            start += 12  # the context is full: its last half stays
        context = ids[:, start:]
        with torch.no_grad():
            scores = method.lm_head(method.encoder(context, torch.ones_like(context)))[0, -1, : len(tokenizer)]
        scores[no_text] = -torch.inf
        ids = torch.cat([ids, scores.argmax().reshape(1, 1)], dim=1)
    assert "\n".join(greedy) == tokenizer.decode(ids[0], skip_special_tokens=True)


def test_a_long_text_draws_other_numbers_in_each_stretch(causal):
    _, spec, method = config.load_run(causal)
    tokenizer = load_tokenizer(str(causal / "tokenizer"), framing="causal")
    stretches = []

    def generate(context, **settings):
        drawn = method.generate(context, **settings)
        stretches.append(drawn[:, context.shape[1] :])
        return drawn

    torch.manual_seed(0)
    complete(
        generate, tokenizer, spec, "The", max_new_tokens=80, num_samples=8, temperature=1e6, device=torch.device("cpu")
    )
    assert sum(stretch.shape[1] for stretch in stretches) == 80
    second, third = stretches[1:3]
    assert second.shape == third.shape == (8, 12)
    assert (second == third).double().mean() < 0.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["prompt="], "prompt= is empty"),
        (["prompt=" + "The dog runs " * 20], "trained on at most 24. Shorten the prompt"),
        (["prompt=The dog", "max_new_tokens=0"], "max_new_tokens=0"),
        (["prompt=The", "temperature=-1"], "found temperature=-1"),
        (["prompt=The", "top_p=0"], "0 < top_p <= 1"),
        (["prompt=The", "top_k=0"], "top_k=0"),
        (["prompt=The", "out=x.png"], "To sample text, out has no meaning"),
        (["text=The [MASK]"], "CausalLM does not predict masked tokens"),
        ([], 'It continues a text: give prompt="..."'),
    ],
)
def test_errors_of_prompts_are_one_message(causal, capsys, args, message):
    assert main(["sample", f"run={causal}", *args]) == 1
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


@pytest.mark.parametrize(("kind", "spaces"), [("bpe", 0), ("characters", 1)])
def test_a_mask_stands_for_a_word_with_the_space_before_it_where_tokens_carry_it(kind, spaces):
    tokenizer = train_tokenizer(kind, lambda: iter([SENTENCES]), vocab_size=400, framing="encoder")
    continues_word = continuing_tokens(tokenizer)
    spec = TextSpec(length=32, vocab_size=len(tokenizer), mask_id=4, special_ids=(0, 1, 2, 3, 4),
        continues_word=continues_word,
    )  # fmt: skip
    seen = []

    def predict_masked(ids, attention_mask, positions):
        seen.append(tokenizer.decode(ids[0]))
        return torch.arange(float(len(tokenizer))).expand(int(positions.sum()), -1)

    filled = fill_masks(predict_masked, tokenizer, spec, "The [MASK]dog [MASK].", device=torch.device("cpu"))
    assert [len(guesses) for guesses in filled.guesses] == [5, 5] and len(seen) == 2
    assert seen[0] == "[CLS]The" + " " * spaces + "[MASK]dog" + " " * spaces + "[MASK].[SEP]"


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
    (out / "mine.txt").write_text("a note")
    assert main([*command, "overwrite=true"]) == 1
    assert "it also holds mine.txt, which no export writes" in capsys.readouterr().err
    (out / "mine.txt").unlink()
    assert main([*command, "overwrite=true"]) == 0
    assert (out / "model.safetensors").read_bytes() == weights

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    capsys.readouterr()
    assert main(["export", f"run={mlm}", f"out={tmp_path / 'mine'}", "overwrite=true"]) == 1
    assert "is not empty and not an earlier export" in capsys.readouterr().err
    assert main(["export", f"run={mlm}", f"out={tmp_path / 'mine/thesis.txt'}"]) == 1
    assert "it is a file" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    assert main(["export", f"run={mlm}", f"out={out}", "format=onx"]) == 1
    assert "There is no format 'onx'. Choose format= from hf, timm, onnx, torch_export" in capsys.readouterr().err


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
