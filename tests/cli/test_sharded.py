"""``trainer=fsdp2`` through the command, by two processes on the CPU: evaluation, export, and what is refused."""

import csv
import json
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from forked import on_ranks, run_main
from transformers import AutoModelForMaskedLM

from ssl_lab.cli import build as config
from ssl_lab.cli.main import main

pytestmark = pytest.mark.slow

SSL_LAB = [sys.executable, "-m", "ssl_lab.cli.main"]
EACH_STEP = ["trainer.devices=2", "trainer.precision=32-true", "trainer.log_every_n_steps=1"]
SHARDED = ["trainer=fsdp2", "trainer.accelerator=cpu", *EACH_STEP]
MAE = [
    "pretrain",
    "method=mae",
    "encoder=vit_mae_mini",
    "encoder.embed_dim=16",
    "encoder.depth=2",
    "encoder.num_heads=2",
    "method.decoder_dim=16",
    "method.decoder_depth=2",
    "method.decoder_num_heads=2",
    "data.batch_size=32",
    "evaluation=label_free",
    "trainer.max_steps=40",
]


@pytest.fixture
def no_process_group_is_left():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def ssl_lab(*args, cwd):
    done = subprocess.run([*SSL_LAB, *args], capture_output=True, text=True, timeout=500, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def losses(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_a_run_is_evaluated_afterwards_as_at_its_end(tmp_path):
    """At the end two ranks judge a copy with whole weights; afterwards one process reads them from the checkpoint."""
    ssl_lab(*MAE, *SHARDED, "run_dir=run", cwd=tmp_path)
    table = json.loads((tmp_path / "run/evaluation.json").read_text())["rows"][-1]
    assert table["name"] == "MAE encoder"
    assert main(["evaluate", f"run={tmp_path / 'run'}"]) == 0
    again = json.loads((tmp_path / "run/evaluation.json").read_text())["rows"][-1]
    assert again["metrics"] == pytest.approx(table["metrics"], rel=1e-3)


def test_a_text_run_has_the_losses_of_ddp_and_goes_on_and_out_as_any_other(tmp_path, monkeypatch):
    """Masks are drawn alike, so the losses are the same; one process resumes what two have begun."""
    (tmp_path / "animals.txt").write_text(
        "\n".join(f"The {a} runs {k} miles." for a in ("dog", "cat") for k in range(40))
    )
    data = [
        "data=text_files",
        "data.path=animals.txt",
        "data.sample_by=line",
        "data.vocab_size=128",
        "data.max_length=24",
    ]
    mlm = ["pretrain", "method=mlm", "encoder=bert_tiny", *data, "data.batch_size=8", "evaluation=none"]
    four = ["trainer.max_steps=4"]
    monkeypatch.chdir(tmp_path)
    on_ranks(2, run_main, [*mlm, *SHARDED, *four, "activation_checkpointing=true", "run_dir=sharded"])
    on_ranks(2, run_main, [*mlm, "trainer=ddp_cpu", *EACH_STEP, *four, "run_dir=ddp"])
    assert losses(tmp_path / "sharded") == pytest.approx(losses(tmp_path / "ddp"), rel=1e-5)
    sharded, ddp = (checkpoint(tmp_path / name) for name in ("sharded", "ddp"))
    for key, value in ddp["state_dict"].items():
        torch.testing.assert_close(sharded["state_dict"][key], value, rtol=1e-5, atol=1e-5, msg=key)
    for number, state in ddp["optimizer_states"][0]["state"].items():
        found = sharded["optimizer_states"][0]["state"][number]["exp_avg"]
        torch.testing.assert_close(found, state["exp_avg"], rtol=1e-4, atol=1e-6)

    out = tmp_path / "out"
    assert main(["export", f"run={tmp_path / 'sharded'}", "format=hf", f"out={out}"]) == 0
    ids = torch.arange(10, 20).unsqueeze(0)
    _, _, method = config.load_run(tmp_path / "sharded")
    expected = method.predict_masked(ids, torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool))
    logits = AutoModelForMaskedLM.from_pretrained(out).eval()(input_ids=ids).logits[0]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_process_group_is_left")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compile=true"], "Compiled modules cannot be sharded"),
        (["trainer.precision=bf16-true"], "Sharded parameters train in 32-true or bf16-mixed"),
        (["trainer.strategy.data_parallel_size=2"], "data_parallel_size should be one of auto"),
        (["method=gan", "encoder=dcgan"], "GAN cannot train with sharded parameters: it steps its optimizers itself"),
        (
            ["activation_checkpointing=true", "encoder=convnet"],
            "its batch normalisation would count each batch twice",
        ),
        (["activation_checkpointing=true", "encoder=mlp"], "it has no repeated blocks"),
        (["activation_checkpointing=true", "compile=true"], "do not go together"),
    ],
)
def test_what_does_not_work_sharded_is_refused_in_one_message(args, message, tmp_path, capsys):
    words = ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true"]
    assert main(["pretrain", *words, "evaluation=none", f"run_dir={tmp_path / 'run'}", *args]) == 1
    assert message in capsys.readouterr().err
