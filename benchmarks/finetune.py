"""A pretrained text encoder carried to six tasks, beside the same network from random weights.

    python benchmarks/finetune.py --run RUN_DIR --data DIR --runs DIR --json benchmarks/results/finetune.json

The data folder holds SST-2, AG_News, STS-B, conll2000, SQuAD_style and Multi30k as their repositories publish them. Each task
is one ``ssl-lab finetune`` command, printed before it starts; its settings are in the table below. The last checkpoint is
scored on test. Trainings that are finished are read, not repeated, so the same command goes on after an interruption.

With ``--rates 5e-4 1e-3 2e-3 --tasks sst2`` each start gets the learning rate that is best for it on dev, as a mean over
the seeds, and is scored on test at that rate.

Lengths are chosen for BERT-mini (4 layers, 256 wide) in bf16 on one CPU thread: about 9 minutes of training for each of
the six tasks at most, with three seeds and both starting points.
"""

import argparse
import csv
import gzip
import itertools
import json
from pathlib import Path
from statistics import fmean

from command import ssl_lab, write_json

SHARED = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "data.batch_size=32", "data.val_fraction=0"]
SHORT_TEXT = ["task=classification", "data=hub_text", "data.label_column=label", "data.max_length=64"]
# Task: its files by split, and its settings. Steps are of 32 rows.
TASKS = {
    "sst2": (  # sentences of films, 2 classes; two epochs
        {"train": "SST-2/train.tsv", "val": "SST-2/dev.tsv", "test": "SST-2/test.tsv"},
        [
            *SHORT_TEXT,
            "data.options={names: [text, label], header: null}",
            *("optim.lr=5e-4", "trainer.max_steps=432"),
        ],
    ),
    "ag_news": (  # topics of news, 4 classes; one epoch
        {"train": "AG_News/train_10k.csv.gz", "test": "AG_News/test.csv.gz"},
        [*SHORT_TEXT, "data.text_column=text", "optim.lr=5e-4", "trainer.max_steps=312"],
    ),
    "sts_b": (  # similarity of sentences, 0 to 5; three epochs
        {"train": "STS-B/sts-train.csv", "test": "STS-B/sts-test.csv"},
        ["task=similarity", "data=sts_b", "data.max_length=48", "optim.lr=2e-4", "trainer.max_steps=540"],
    ),
    "conll2000": (  # chunks; most of an epoch
        {"train": "conll2000/train.txt.gz", "test": "conll2000/test.txt.gz"},
        [
            "task=token_classification",
            "data=token_labels",
            "data.max_length=64",
            "optim.lr=5e-4",
            "trainer.max_steps=240",
        ],
    ),
    "squad": (  # SQuADShifts' new Wikipedia questions, tested on the English part of XQuAD
        {"train": "SQuAD_style/squadshifts/new_wiki_v1.0.json.gz", "test": "SQuAD_style/xquad/xquad.en.json"},
        [
            *("task=question_answering", "data=squad", "data.max_length=128", "data.max_question_length=24"),
            *("data.doc_stride=32", "optim.lr=3e-4", "trainer.max_steps=400"),
        ],
    ),
    "multi30k": (  # English to German; two thirds of an epoch
        {"train": "Multi30k/raw/train", "test": "Multi30k/raw/test_2016_flickr"},
        [
            *("task=translation", "data=parallel_text", "data.source=en", "data.target=de", "data.max_length=32"),
            *("data.target_max_length=40", "data.target_vocab_size=4096", "optim.lr=1e-3", "trainer.max_steps=600"),
        ],
    ),
}


JUDGED_BY = ("accuracy", "spearman", "f1", "bleu")  # the metric that chooses a rate, the one of these that a task has


def opened(file, mode="r"):
    return (gzip.open if file.suffix == ".gz" else open)(file, f"{mode}t", encoding="utf-8", newline="")


def shortened(file, out, limit):
    """A copy of a file with its first rows: lines, records of a table, sentences, or questions."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with opened(file) as source, opened(out, "w") as copy:
        if ".json" in file.name:
            left, articles = limit, []
            for article in json.load(source)["data"]:
                paragraphs = []
                for paragraph in article["paragraphs"]:
                    questions = paragraph["qas"][: max(0, left)]
                    left -= len(questions)
                    paragraphs += [{**paragraph, "qas": questions}] if questions else []
                articles += [{**article, "paragraphs": paragraphs}] if paragraphs else []
            json.dump({"data": articles}, copy)
        elif file.name.endswith(".csv.gz"):
            csv.writer(copy).writerows(itertools.islice(csv.reader(source), limit + 1))  # with the head
        elif ".txt" in file.name:
            copy.write("\n\n".join(source.read().strip().split("\n\n")[:limit]) + "\n")
        else:
            copy.writelines(itertools.islice(source, limit))
    return out


def files_of(name, root, folder, limit, with_val):
    """Paths of a task's splits as an override."""
    paths = {}
    for split, file in TASKS[name][0].items():
        if split == "val" and not with_val:
            continue
        paths[split] = root / file
        if limit is not None:
            endings = [".en.gz", ".de.gz"] if name == "multi30k" else [""]
            for ending in endings:
                source = Path(f"{root / file}{ending}")
                shortened(source, Path(f"{folder / file}{ending}"), limit)
            paths[split] = folder / file
    return "data.path={" + ", ".join(f"{split}: {path}" for split, path in paths.items()) + "}"


def finetune(name, args, rate=None):
    """Train what is not finished of a task; its finetune.json."""
    shortened_to = [f"limit_{args.limit}"] if args.limit is not None else []
    shortened_to += [f"steps_{args.max_steps}"] if args.max_steps is not None else []
    shortened_to += [f"lr_{rate}"] if rate is not None else []
    folder = args.runs / "_".join([name, *shortened_to])
    settings = [setting for setting in TASKS[name][1] if args.max_steps is None or "max_steps" not in setting]
    if rate is not None:
        settings = [setting for setting in settings if not setting.startswith("optim.lr=")] + [f"optim.lr={rate}"]
    if args.max_steps is not None:
        settings.append(f"trainer.max_steps={args.max_steps}")
    ssl_lab(
        *("finetune", f"run={args.run}", "baseline=true", f"seeds={list(args.seeds)}".replace(" ", "")),
        *(
            *SHARED,
            *settings,
            files_of(name, args.data, args.runs / f"data_{args.limit}", args.limit, rate is not None),
        ),
        *("trainer.max_epochs=-1", "evaluate_every_n_epochs=1000", *args.overrides),
        *(f"run_dir={folder}", "ckpt=last"),
    )
    return {"settings": settings, **json.loads((folder / "finetune.json").read_text())}


def chosen(name, args):
    """Of several learning rates the result of each start at the one that is best for it on val, a mean over seeds."""
    tried = {rate: finetune(name, args, rate) for rate in args.rates}
    rows = []
    for row in next(iter(tried.values()))["rows"]:
        start = row["name"].removesuffix(" weights")
        on_val = {rate: fmean(_on_val(result, start)) for rate, result in tried.items()}
        best = max(on_val, key=on_val.get)
        (metrics,) = [other["metrics"] for other in tried[best]["rows"] if other["name"] == row["name"]]
        rows.append({"name": row["name"], "rate": best, "val": on_val, "metrics": metrics})
    return {"rows": rows, "tried": tried}


def _on_val(result, start):
    (metric,) = {m for t in result["trainings"] for m in t["metrics"] if m in (f"eval/finetune/{k}" for k in JUDGED_BY)}
    return [training["metrics"][metric] for training in result["trainings"] if training["start"] == start]


def table(results):
    """Markdown: a line for each metric of each task; shares in percent."""
    lines = ["| task | metric | pretrained | random weights |", "|---|---|---|---|"]
    for name, result in results.items():
        metrics = [metric for metric in result["rows"][0]["metrics"] if not metric.endswith("_std")]
        for metric in metrics:
            scale = 1 if metric.endswith(("bleu", "chrf")) else 100
            cells = []
            for row in result["rows"]:
                deviation = row["metrics"].get(f"{metric}_std")
                spread = "" if deviation is None else f" ± {scale * deviation:.1f}"
                cells.append(f"{scale * row['metrics'][metric]:.1f}{spread}")
            lines.append(f"| {name} | {metric.removeprefix('finetune/')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory of the pretraining")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="+", metavar="LR", help="learning rates to choose from on val")
    parser.add_argument("--limit", type=int, metavar="N", help="rows of each split; all by default")
    parser.add_argument("--max-steps", type=int, metavar="N", help="steps of each training, instead of the table's")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of all trainings, after --")
    args = parser.parse_args()
    without = [name for name in args.tasks if "val" not in TASKS[name][0]]
    if args.rates and without:
        parser.error(f"--rates needs a split to choose on, which {', '.join(without)} lack. Give --tasks sst2.")

    results = {}
    for name in args.tasks:
        results[name] = chosen(name, args) if args.rates else finetune(name, args)
        write_json(results, args.json)
    print(table(results))


if __name__ == "__main__":
    main()
