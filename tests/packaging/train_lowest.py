"""Trains a ViT, a VAE and a masked language model for a few steps, judges one, and fine-tunes the last; in this folder.

Every extra is used, or imported where a use needs weights or a cluster.
"""

import sys
from pathlib import Path

import sacrebleu  # noqa: F401
import submitit  # noqa: F401
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: F401

from ssl_lab.cli.main import main

FEW = ["trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=3", "pictures_every_n_epochs=null"]
TINY_TEXT = ["data.vocab_size=300", "data.max_length=16", "data.batch_size=4"]


def run(*args: str) -> None:
    """Run one command; leave with its exit code if it fails."""
    print(f"ssl-lab {' '.join(args)}", flush=True)
    if code := main(list(args)):
        sys.exit(code)


Path("texts.txt").write_text("\n\n".join(f"a text of some words, number {k}" for k in range(60)))
PLAIN = ["evaluation=none", "objective=null"]
run("pretrain", "experiment=mae_digits", *PLAIN, *FEW, "run_dir=vit")
run("pretrain", "experiment=vae_digits", *PLAIN, *FEW, "logger=tensorboard", "run_dir=vae")
run("evaluate", "run=vit", "evaluation=label_free")
run("sample", "run=vae", "num_samples=4")
run("export", "run=vae", "format=onnx", "out=onnx")
run("dashboard", ".", "--out", "site")
run("pretrain", "method=mlm", "encoder=bert_tiny", "data=text_files", "data.path=texts.txt", *PLAIN, *TINY_TEXT, *FEW,
    "run_dir=mlm")  # fmt: skip
Path("labelled.csv").write_text("text,label\n" + "".join(f"text {k},{'ab'[k % 2]}\n" for k in range(60)))
run("finetune", "run=mlm", "data=text_files", "data.path=labelled.csv", "data.label_column=label", "data.max_length=16",
    "data.batch_size=4", "trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=3", "lora.rank=2",
    "run_dir=tuned")  # fmt: skip
