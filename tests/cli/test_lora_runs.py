"""Runs with adapters: what trains, resumption to the bit, use by other commands, and export."""

import csv
import json

import pytest
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizerFast

from ssl_lab.cli.build import load_run
from ssl_lab.cli.main import main
from ssl_lab.encoders.lora import without_adapters
from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint
from ssl_lab.tensors import read_tensors

TEXTS = [f"it is a {('good', 'bad')[k % 2]} film number {k} of the {('red', 'green')[k % 2]} fox" for k in range(80)]
SMALL = ["trainer.accelerator=cpu", "data.batch_size=8", "data.max_length=24", "trainer.limit_train_batches=3"]
CONSTANT = ["optim.warmup_fraction=0", "optim.final_lr_fraction=1"]
MLM = [
    "pretrain",
    "method=mlm",
    "data=text_files",
    "data.path=texts.txt",
    "encoder=bert_base",
    "encoder.pretrained=bert",
]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A published BERT with its tokenizer, texts, and a run of masked language modelling with adapters."""
    folder = tmp_path_factory.mktemp("lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_LAB_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        (folder / "texts.txt").write_text("\n\n".join(TEXTS))
        trained = BertWordPieceTokenizer()
        trained.train_from_iterator(TEXTS, vocab_size=120, min_frequency=1)
        trained.save("tokenizer.json")
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
        tokenizer = BertTokenizerFast(tokenizer_file="tokenizer.json", **names)
        tokenizer.save_pretrained("bert")
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(
            "bert"
        )
        assert (
            main([*MLM, "lora.rank=4", *SMALL, *CONSTANT, "evaluation=none", "trainer.max_epochs=2", "run_dir=run"])
            == 0
        )
        yield folder


def state(run_dir):
    return read_checkpoint(run_dir / "checkpoints/last.ckpt")["state_dict"]


def test_a_bert_folder_brings_its_tokenizer_and_its_weights(folder, capsys):
    free = ["optim.lr=1e-30", "optim.weight_decay=0", "evaluation=none", "trainer.max_epochs=1", "run_dir=same"]
    assert main([*MLM, *SMALL, *free]) == 0
    assert "Loading weights" not in "".join(capsys.readouterr())
    method = load_run(folder / "same")[2]
    tokenizer = AutoTokenizer.from_pretrained(folder / "same/tokenizer")
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folder / "bert").get_vocab()
    source = AutoModelForMaskedLM.from_pretrained(folder / "bert").eval()
    inputs = tokenizer(TEXTS[:2], return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = source.base_model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(2).float()
        found = method.encoder.embed(inputs)
    torch.testing.assert_close(found, (hidden * mask).sum(1) / mask.sum(1), rtol=1e-4, atol=1e-4)


def test_only_adapters_and_the_head_have_moved(folder):
    start, found = read_tensors(folder / "run/checkpoints/start.safetensors"), state(folder / "run")
    kept = {name: tensor for name, tensor in found.items() if name.startswith("encoder.") and "lora_" not in name}
    assert {name.removeprefix("encoder.").replace(".base_layer", "") for name in kept} == set(start)
    for name, tensor in kept.items():
        assert torch.equal(tensor, start[name.removeprefix("encoder.").replace(".base_layer", "")])
    assert all(tensor.abs().sum() > 0 for name, tensor in found.items() if "lora_B" in name)
    source = read_tensors(folder / "bert")
    assert not torch.equal(
        next(found[name] for name in found if name.endswith("transform.dense.weight")),
        source["cls.predictions.transform.dense.weight"],
    )


def test_it_resumes_to_the_bit_and_needs_no_folder_of_the_model(folder, capsys):
    command = [*MLM, "lora.rank=4", *SMALL, *CONSTANT, "evaluation=none", "run_dir=parts"]
    assert main([*command, "trainer.max_epochs=1"]) == 0
    told = capsys.readouterr().out
    assert "LoRA trains " in told and " parameters of the encoder (" in told
    (folder / "bert").rename(folder / "away")
    try:
        tokenizer = "data.tokenizer=parts/tokenizer"
        assert main([*command, tokenizer, "trainer.max_epochs=2", "force=true"]) == 0
        assert main(["embed", "run=run", "out=features.parquet"]) == 0
    finally:
        (folder / "away").rename(folder / "bert")
    one, other = state(folder / "run"), state(folder / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_export_holds_the_merged_weights(folder):
    assert main(["export", "run=run", "format=hf", "out=exported"]) == 0
    model = AutoModelForMaskedLM.from_pretrained(folder / "exported").eval()
    method = load_run(folder / "run")[2]
    batch = {name: column for name, column in method.encoder.spec.example(4).items() if name != "index"}
    with torch.no_grad():
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        wanted = method.lm_head(method.encoder(batch["input_ids"], batch["attention_mask"]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name in model.state_dict())


def test_fine_tuning_begins_with_merged_weights_and_may_have_adapters_of_its_own(folder, capsys):
    with (folder / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((text, ("pos", "neg")[k % 2]) for k, text in enumerate(TEXTS))]
        )
    data = ["data=hub_text", "data.path=films.csv", "data.label_column=label"]
    tune = ["finetune", "run=run", *data, *SMALL, "trainer.max_epochs=1", "lora.rank=2", "baseline=true"]
    assert main([*tune, "run_dir=tuned"]) == 0
    assert "LoRA trains " in capsys.readouterr().out
    wanted = without_adapters(load_run(folder / "run")[2].encoder).state_dict()
    found = state(folder / "tuned/pretrained/seed_0")
    for name, tensor in wanted.items():
        layer, _, kind = name.rpartition(".")
        base = found.get(f"encoder.{layer}.base_layer.{kind}", found.get(f"encoder.{name}"))
        assert torch.equal(base, tensor)
    assert not any("lora_" in name for name in state(folder / "tuned/random/seed_0"))
    rows = json.loads((folder / "tuned/finetune.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["pretrained weights", "random weights", "word counts + linear"]
    assert main(["evaluate", "run=tuned/pretrained/seed_0", "out=tuned.json"]) == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["pretrain", "lora.rank=4", "run_dir=r"], "beside random weights"),
        ([*MLM, "lora.alpha=4", "run_dir=r"], "lora.alpha has no effect without lora.rank"),
        ([*MLM, "lora.rank=four", "run_dir=r"], "lora.rank"),
        (
            ["finetune", "run=run", "data=hub_text", "data.path=texts.txt", "lora.dropout=0.1", "run_dir=r"],
            "lora.dropout",
        ),
        (["pretrain", "run=run", "lora.rank=2", "force=true"], "adapters of another rank"),
    ],
)
def test_what_cannot_be_is_refused(folder, capsys, command, said):
    assert main(command) == 1
    found = capsys.readouterr().err
    assert said in found and "Traceback" not in found


def test_an_image_run_goes_on_with_adapters_and_a_teacher(folder):
    vit = ["encoder=vit_mae_mini", "encoder.embed_dim=24", "encoder.depth=2", "encoder.num_heads=3"]
    short = ["trainer=smoke", "trainer.max_steps=2", "evaluation=none"]
    assert main(["pretrain", "method=mae", *vit, *short, "run_dir=mae"]) == 0
    assert main(["pretrain", "method=byol", "encoder.from_run=mae", "lora.rank=2", *short, "run_dir=byol"]) == 0
    frozen = state(folder / "mae")["encoder.patch_embed.weight"]
    found = state(folder / "byol")
    assert all(torch.equal(found[name], frozen) for name in found if name.endswith("encoder.patch_embed.weight"))
    assert main(["pretrain", "method=mae", "encoder.from_run=byol", *short, "run_dir=back"]) == 0
    assert not any("lora_" in name for name in state(folder / "back"))
