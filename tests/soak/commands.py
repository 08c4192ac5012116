"""The commands that are killed: small ones, each with what has to be there before it."""

import csv
import json
import os
from dataclasses import dataclass

from PIL import Image

DIGITS = ["data=digits", "data.batch_size=256", "trainer=cpu", "trainer.log_every_n_steps=1"]
CONVNET = ["encoder=convnet", "encoder.widths=[4,8]"]
EVALUATED = ["evaluate_every_n_epochs=1", "save_every_n_steps=3", "trainer.max_epochs=2", "pictures_every_n_epochs=1"]
KNN = ["evaluation=features", "~evaluation.few_label", "~evaluation.linear"]
SIMCLR = ["method=simclr", *DIGITS, *CONVNET, "views@method.views=digits", "method.hidden_dim=8", *EVALUATED, *KNN]
VAE = ["method=vae", *DIGITS, *CONVNET, "method.latent_dim=4", *EVALUATED, "evaluation=none"]
GAN = ["experiment=gan_digits", *DIGITS, "encoder.width=4", *EVALUATED, "evaluation=none", "method.latent_dim=4"]
TEXT = ["data=text_files", "data.path=corpus", "data.vocab_size=120", "data.max_length=16", "data.batch_size=16"]
MLM = [
    "method=mlm",
    *TEXT,
    "encoder=bert_tiny",
    "trainer=cpu",
    "trainer.max_epochs=2",
    *EVALUATED[:2],
    "evaluation=mlm",
]
TASK = ["data=hub_text", "data.path=films.csv", "data.label_column=label", "data.batch_size=16", "data.max_length=16"]
FINETUNE = ["finetune", "run=runs/mlm", *TASK, "trainer=cpu", "trainer.max_epochs=2", "run_dir=tuned"]
README = "# Mine\n\nwords of my own\n\n<!-- leaderboard: -->\nold\n<!-- end -->\n\nmore words\n"


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        name: Short name.
        args: What is started, and started again after the kill.
        needs: Names of the templates copied before: ``runs``, ``text``.
        before: Commands that make what was there before, such as an export that is replaced.
        again: What is started after the kill, where that is another command.
        kept: Paths whose whole content, old or new, a kill must leave on the disk.
        unlike: Patterns of files that may differ from those in peace.
    """

    name: str
    args: list[str]
    needs: tuple[str, ...] = ()
    before: tuple[list[str], ...] = ()
    again: list[str] | None = None
    kept: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()


def write_text(folder):
    """A corpus, tasks with labels, images with captions or masks, and a page of one's own."""
    os.makedirs(f"{folder}/corpus")
    words = "the cat sat on a mat and saw one dog run far away from it".split()
    for split, number in (("train", 60), ("val", 12), ("test", 12)):
        lines = [" ".join(words[(k * 7 + j * (k % 5 + 1)) % len(words)] for j in range(12)) for k in range(number)]
        _write(f"{folder}/corpus/{split}.txt", "\n\n".join(lines) + "\n")
    rows = [(f"it is a {('good', 'bad')[k % 2]} film number {k}", ("pos", "neg")[k % 2]) for k in range(60)]
    _write_table(f"{folder}/films.csv", [("text", "label"), *rows])
    pairs = [(f"the cat number {k}", f"the {('cat', 'dog')[k % 2]} number {k}", 5.0 * (1 - k % 2)) for k in range(60)]
    _write_table(f"{folder}/pairs.csv", [("sentence1", "sentence2", "score"), *pairs])
    tagged = [f"{('Ann', 'Bob')[k % 2]} B-PER\nsees O\n{('Rome', 'Oslo')[k % 3 % 2]} B-LOC\n" for k in range(60)]
    _write(f"{folder}/tags.txt", "\n".join(tagged))
    _write(f"{folder}/questions.json", json.dumps({"version": "1.1", "data": [_article(k) for k in range(20)]}))
    os.mkdir(f"{folder}/parallel")
    for split, number in (("train", 40), ("val", 8), ("test", 8)):
        _write(f"{folder}/parallel/{split}.en", "".join(f"a dog number {k}\n" for k in range(number)))
        _write(f"{folder}/parallel/{split}.de", "".join(f"ein Hund Nummer {k}\n" for k in range(number)))
    os.mkdir(f"{folder}/pictures")
    for k in range(40):
        Image.new("RGB", (8, 8), ((200, k, 30), (30, k, 200))[k % 2]).save(f"{folder}/pictures/{k}.png")
    captions = [(f"pictures/{k}.png", f"a {('red', 'blue')[k % 2]} square {k}") for k in range(40)]
    _write_table(f"{folder}/captions.csv", [("image", "caption"), *captions])
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        os.makedirs(f"{folder}/masked/{kind}")
        for k in range(40):
            part = Image.new("L", (8, 4), (60 + k if kind == "images" else 1))
            whole = Image.new("L", (8, 8), (200 if kind == "images" else 0))
            whole.paste(part, (0, 4 * (k % 2)))
            whole.save(f"{folder}/masked/{kind}/{k}.{ending}")
    _write(f"{folder}/README.md", README)


def _article(number):
    """A text with one question, as in SQuAD's files."""
    text = f"Town {number} lies by a river. Its mayor is Smith{number}, who is old."
    answer = {"text": f"Smith{number}", "answer_start": text.index("Smith")}
    question = {"id": str(number), "question": f"Who is mayor of Town {number}?", "answers": [answer]}
    return {"title": str(number), "paragraphs": [{"context": text, "qas": [question]}]}


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def _write_table(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


RUNS = {
    "simclr": ["pretrain", *SIMCLR, "run_dir=runs/simclr"],
    "vae": ["pretrain", *VAE, "run_dir=runs/vae"],
    "gan": ["pretrain", *GAN, "run_dir=runs/gan"],
    "mlm": ["pretrain", *MLM, "run_dir=runs/mlm"],
}
"""Finished runs that other commands need."""

USE = ("runs",)
COMMANDS = [
    Command("pretrain simclr", ["pretrain", *SIMCLR, "callbacks=online_probes", "run_dir=new"]),
    Command("pretrain vae", ["pretrain", *VAE, "run_dir=new"]),
    Command("pretrain gan", ["pretrain", *GAN, "run_dir=new"]),
    Command("pretrain mlm", ["pretrain", *MLM, "run_dir=new"], needs=("text",)),
    Command("pretrain run=", ["pretrain", "run=runs/vae", "force=true", "trainer.max_epochs=3"], needs=USE),
    Command(
        "pretrain -m",
        ["pretrain", "-m", *SIMCLR, "objective=eval/knn/top1", "seed=1,2", "sweep_dir=sweep", "trainer.max_epochs=1"],
    ),
    Command("finetune", [*FINETUNE, "seeds=[0,1]", "baseline=true"], needs=("runs", "text")),
    Command("finetune best", [*FINETUNE, "select=best", "save_every_n_minutes=0"], needs=("runs", "text")),
    Command("evaluate", ["evaluate", "run=runs/simclr"], needs=USE),
    Command("evaluate other protocols", ["evaluate", "run=runs/simclr", "evaluation=label_free"], needs=USE),
    Command("evaluate two", ["evaluate", "run=[runs/simclr,runs/vae]", *KNN], needs=USE),
    Command("embed", ["embed", "run=runs/simclr", "out=features.parquet"], needs=USE),
    Command("embed again", ["embed", "run=runs/vae", "out=mine/features.parquet"], needs=USE,
            before=(["embed", "run=runs/simclr", "out=mine/features.parquet"],), kept=("mine/features.parquet",)),
    Command("sample grid", ["sample", "run=runs/vae"], needs=USE),
    Command("sample folder", ["sample", "run=runs/gan", "out=samples", "num_samples=12"], needs=USE),
    Command("sample npz", ["sample", "run=runs/gan", "out=samples", "num_samples=300", "format=npz"], needs=USE),
    Command("reconstruct", ["reconstruct", "run=runs/vae"], needs=USE),
    Command("interpolate", ["interpolate", "run=runs/vae"], needs=USE),
    Command("export hf", ["export", "run=runs/mlm", "format=hf", "out=exported"], needs=USE),
    Command("export hf again", ["export", "run=runs/mlm", "format=hf", "out=exported", "overwrite=true"], needs=USE,
            before=(["export", "run=runs/mlm", "format=hf", "out=exported"],), kept=("exported",)),
    Command("export torch_export", ["export", "run=runs/simclr", "format=torch_export", "out=exported"], needs=USE),
    Command("prepare", ["prepare", *TEXT[:4], "out=shards", "num_workers=1", "shard_mib=0.001"], needs=("text",)),
    Command("report", ["report", "runs/simclr", "runs/vae", "runs/mlm"], needs=USE),
    Command("report --out", ["report", "runs/simclr", "runs/vae", "--out", "both.html"], needs=USE),
    Command("leaderboard --out", ["leaderboard", "runs", "--out", "tables"], needs=USE),
    Command("leaderboard --update", ["leaderboard", "--update", "README.md"], needs=("runs", "text"),
            kept=("README.md",)),
    Command("dashboard --out", ["dashboard", "runs", "--out", "site"], needs=USE),
    Command("dashboard --out again", ["dashboard", "runs", "--out", "site"], needs=USE,
            before=(["dashboard", "runs/mlm", "--out", "site"],)),
    Command("bench --out", ["bench", *SIMCLR, "num_steps=2", "warmup_steps=1", "out=speed.json"], unlike=("^speed.json$",)),
]  # fmt: skip
