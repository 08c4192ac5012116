"""Masked language modelling on the text of SST-2, then a linear probe of sentiment, beside the encoder before training.

    python benchmarks/sentiment.py --root DIR_OF_SST_2 --run DIR --json benchmarks/results/sentiment.json

The folder holds train.tsv, dev.tsv and test.tsv (sentence, label) and glue/train.tsv.gz (phrases of the same training
sentences, under a header). BERT-tiny reads the training sentences and their phrases of four words and more, without
labels; the probe is fitted to train.tsv and scored on test.tsv. A run that is finished is not repeated.
"""

import argparse
import gzip
import random
from pathlib import Path

from command import pretrain, read, ssl_lab, write_json

PRETRAIN = [
    "experiment=mlm_text",
    "data.sample_by=line",
    "data.max_length=32",
    "data.batch_size=32",
    "encoder=bert_tiny",
    "encoder.dropout=0.0",
    "method.masking.mask_prob=0.3",
    "optim.lr=3e-3",
    "trainer.max_epochs=20",
    "trainer.accelerator=cpu",
    "trainer.precision=bf16-mixed",
]


def sentences(lines):
    return [line.split("\t")[0].strip() for line in lines]


def write_texts(root, folder):
    """One text file per split, a phrase or sentence per line."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(root / "glue/train.tsv.gz", "rt", encoding="utf-8") as file:
        phrases = [phrase for phrase in sentences(file)[1:] if len(phrase.split()) >= 4]
    random.Random(0).shuffle(phrases)
    for split, source in {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}.items():
        texts = sentences((root / source).read_text(encoding="utf-8").splitlines())
        if split == "train":
            texts = phrases + texts
        (folder / f"{split}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of SST-2")
    parser.add_argument("--run", type=Path, required=True, help="run directory; the texts go beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    texts = args.run.with_name(f"{args.run.name}_texts")
    write_texts(args.root, texts)
    pretrain(args.run, *PRETRAIN, f"data.path={texts}", f"seed={args.seed}")
    files = f"train: {args.root}/train.tsv, val: {args.root}/dev.tsv, test: {args.root}/test.tsv"
    ssl_lab(
        *("evaluate", f"run={args.run}", "evaluation=features", "data=hub_text", f"data.path={{{files}}}"),
        *("data.options={names: [sentence, label], header: null}", "data.text_column=sentence"),
        *("data.label_column=label"),
    )
    newest = max(args.run.glob("evaluation_*.json"), key=lambda file: file.stat().st_mtime)
    result = read(args.run, newest.name)
    for name, metrics in result["scores"].items():
        print(f"{name:16} kNN {100 * metrics['knn/top1']:.1f} %, linear probe {100 * metrics['linear/top1']:.1f} %")
    write_json(result, args.json)


if __name__ == "__main__":
    main()
